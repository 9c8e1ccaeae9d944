"""Speed of the network, beside the published IRN structure in the same run, and what share of the chip that is.

    python -m benchmarks.network                                      # this machine's CPU, float32
    python -m benchmarks.network --device cuda                        # all of a GPU's list, in under ten minutes
    python -m benchmarks.network --scales 2 4 --side 720 --repeats 3

Whole ways, pixels in the CPU's memory to pixels in the CPU's memory, after a warm-up: medians in MPix/s of source pixels. IRN
(Xiao et al., ECCV 2020) is built here from its paper, with random weights, and timed on the same pixels, in the same precision.
On a GPU it also measures what half precision costs in quality. Needs torch and numpy alone, Pillow for --images.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.utils.flop_counter import FlopCounterMode

import benchmarks.support.bare  # noqa: F401, before what reads weights
from benchmarks.support.machine import processor
from iarn.encoding import Place
from iarn.metrics import psnr
from iarn.pretrained import shipped
from iarn.split import merge, split
from iarn.weights import unpack
from pipeline.engines.engine import Downscale, Engine, Restore, choose_device

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
IRN_BLOCKS, IRN_GROWTH = 8, 32


class DenseBlock(nn.Module):
    """Five 3 x 3 convolutions, each of which sees all before it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = [IRN_GROWTH] * 4 + [outputs]
        self.layers = nn.ModuleList(nn.Conv2d(inputs + i * IRN_GROWTH, w, 3, padding=1) for i, w in enumerate(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.cat([x, leaky_relu(layer(x), 0.2)], dim=1)
        return self.layers[-1](x)


class InvertibleBlock(nn.Module):
    """IRN's block: an addition to the low band, scale and shift for the high bands, a dense block for each."""

    def __init__(self, high: int) -> None:
        super().__init__()
        self.f, self.g, self.h = DenseBlock(high, 3), DenseBlock(3, high), DenseBlock(3, high)

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        u = u + self.f(v).float()
        return u, v * torch.exp(2 * torch.sigmoid(self.h(u).float()) - 1) + self.g(u).float()

    def inverse(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = (v - self.g(u).float()) * torch.exp(1 - 2 * torch.sigmoid(self.h(u).float()))
        return u - self.f(v).float(), v


class Irn(nn.Module):
    """A Haar transform and eight blocks for each halving; high bands of the first go beside the second's low band."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleList(InvertibleBlock(3 * (4**level - 1)) for _ in range(IRN_BLOCKS)) for level in range(1, levels + 1)
        )

    def downscale(self, u: Tensor) -> Tensor:
        v = u[:, :0]
        for stage in self.stages:
            x, high = split(torch.cat([u, v], dim=1))
            u, v = x[:, :3], torch.cat([x[:, 3:], high], dim=1)
            for block in stage:
                u, v = block(u, v)
        return u

    def restore(self, u: Tensor) -> Tensor:
        v = u.new_zeros(len(u), 3 * (4 ** len(self.stages) - 1), *u.shape[2:])
        for stage in reversed(self.stages):
            for block in reversed(stage):
                u, v = block.inverse(u, v)
            x = torch.cat([u, v], dim=1)
            x = merge(x[:, : x.shape[1] // 4], x[:, x.shape[1] // 4 :])
            u, v = x[:, :3], x[:, 3:]
        return u


Ways = tuple[Callable[[], object], Callable[[], object]]
"""Downscale and restore."""


@dataclass(frozen=True)
class Timed:
    """Medians of both ways, in MPix/s."""

    downscale: float
    restore: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.5, 2, 3, 4])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="on a GPU all, on a CPU float32, unless given")
    parser.add_argument("--batches", type=int, nargs="+", help="images at once; on a GPU 1 and 16, on a CPU 1, unless given")
    parser.add_argument("--side", type=int, default=0, help="pixels; 1000 on a GPU and 720 on a CPU unless given")
    parser.add_argument("--repeats", type=int, default=0, help="7 on a GPU, 3 on a CPU unless given")
    parser.add_argument("--compiled", action="store_true", help="also with torch.compile, on a GPU")
    parser.add_argument("--images", type=Path, help="a folder of PNG files, to measure half precision's quality with")
    options = parser.parse_args()
    device = choose_device(options.device)
    gpu = device.type == "cuda"
    torch.backends.cudnn.benchmark = gpu
    side, repeats = options.side or (1000 if gpu else 720), options.repeats or (7 if gpu else 3)
    precisions = options.precisions or (list(PRECISIONS) if gpu else ["float32"])
    batches = options.batches or ([1, 16] if gpu else [1])
    print(f"{machine(device)}; images of {side} x {side}, medians of {repeats}, {time.strftime('%Y-%m-%d')}\n")
    rows = []
    for precision in precisions:
        peak, bandwidth = roofline(device, PRECISIONS[precision])
        print(f"{precision}: a product of matrices {peak / 1e12:.2f} TFLOP/s, a copy {bandwidth / 1e9:.0f} GB/s", flush=True)
        engines = {"": Engine(shipped(), device, precision=PRECISIONS[precision])}
        if options.compiled and gpu:
            engines[", compiled"] = Engine(shipped(), device, precision=PRECISIONS[precision], compiled=True)
        for scale, batch in product(options.scales, batches):
            images = pictures(side, batch)
            runs = {name: engine_ways(engine, images, scale) for name, engine in engines.items()}
            if scale in (2, 4):
                runs["IRN"] = irn_ways(images, scale, device, PRECISIONS[precision])
            found = by_turns(runs, device, side * side * batch / 1e6, repeats)
            for name in engines:
                share = found[name].downscale * 1e6 / bound(side, scale, precision, peak, bandwidth)
                rows.append(row(scale, precision + name, batch, found[name], found.get("IRN"), share))
                print(rows[-1], flush=True)
    print()
    print("| scale | precision | images at once | downscale, MPix/s | restore | IRN downscale | restore | times IRN, downscale "
          "| restore | share of the roofline, downscale |\n" + "|---" * 10 + "|")  # fmt: skip
    print("\n".join(rows))
    if len(precisions) > 1 or options.images:
        quality(device, [each for each in precisions if each != "float32"] or ["float16", "bfloat16"], options.images)


def machine(device: torch.device) -> str:
    """Return what the figures are of."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def pictures(side: int, count: int) -> list[np.ndarray]:
    """Draw ``count`` images; what they show does not change the time."""
    return list(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8))


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time ``run`` once."""
    begun = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def by_turns(runs: dict[str, Ways], device: torch.device, megapixels: float, repeats: int) -> dict[str, Timed]:
    """Time both ways of each, all by turns so that a busy moment of the machine falls on all."""
    speeds: dict[str, list[list[float]]] = {name: [[], []] for name in runs}
    for turn, (name, ways) in product(range(repeats + 1), runs.items()):
        for way, found in zip(ways, speeds[name], strict=True):
            speed = megapixels / seconds(way, device)
            if turn:
                found.append(speed)
    return {name: Timed(statistics.median(down), statistics.median(back)) for name, (down, back) in speeds.items()}


def engine_ways(engine: Engine, images: list[np.ndarray], scale: float) -> Ways:
    """Return downscale and restore of the product's engine."""
    side = len(images[0])
    lr = math.ceil(side / scale)
    downs = [Downscale(pixels=pixels, lr_size=(lr, lr)) for pixels in images]
    backs = [Restore(lr=pixels[:lr, :lr], size=(side, side)) for pixels in images]
    return partial(engine.downscale_many, downs), partial(engine.restore_many, backs)


def irn_ways(images: list[np.ndarray], scale: float, device: torch.device, precision: torch.dtype) -> Ways:
    """Return those of the published structure with the same ways of pixels in and out, all images in one batch."""
    network = Irn(1 if scale == 2 else 2).eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    side = len(images[0]) // 4 * 4
    whole = np.stack([pixels[:side, :side] for pixels in images])
    small = np.ascontiguousarray(whole[:, : side // int(scale), : side // int(scale)])

    @torch.inference_mode()
    def run(way: Callable[[Tensor], Tensor], pixels: np.ndarray) -> Tensor:
        with torch.autocast(device.type, precision, enabled=precision is not torch.float32):
            x = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
            return (way(x) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()

    return partial(run, network.downscale, whole), partial(run, network.restore, small)


def roofline(device: torch.device, precision: torch.dtype) -> tuple[float, float]:
    """Measure the chip: operations a second of a large product of matrices, bytes a second (read and written) of a copy."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device).to(precision)
    product_seconds = min(seconds(lambda: a @ a, device) for _ in range(6))
    source = torch.empty((1 << 30 if device.type == "cuda" else 1 << 28) // 4, device=device).fill_(1.0)
    target = torch.empty_like(source)
    copy_seconds = min(seconds(lambda: target.copy_(source), device) for _ in range(6))
    return 2 * side**3 / product_seconds, 2 * source.nbytes / copy_seconds


def bound(side: int, scale: float, precision: str, peak: float, bandwidth: float) -> float:
    """Return the pixels a second of the roofline for a downscale: operations at the peak, or bytes at the copy's speed.

    Both are counted as the network runs, without the way to the lattice; bytes are those of convolutions that read their input
    once and write their output once, as if nothing else were read or written.
    """
    lr, tally = math.ceil(side / scale), Tally(4 if precision == "float32" else 2)
    network = unpack(shipped()).to("meta")  # shapes without values
    axes = network.axes((side, side), (lr, lr))
    with torch.no_grad(), FlopCounterMode(display=False) as counter, tally:
        network.analyse_lr(torch.zeros(1, 3, axes[0].points, axes[1].points, device="meta"), [Place(axes=axes)])
    return side * side / max(counter.get_total_flops() / peak, tally.bytes / bandwidth)


class Tally(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the bytes that convolutions read and write."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.bytes = size, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.convolution.default:
            self.bytes += self.size * (args[0].numel() + args[1].numel() + result.numel())
        return result


def row(scale: float, precision: str, batch: int, own: Timed, irn: Timed | None, share: float) -> str:
    """Return a line of the table."""
    beside = ["", "", "", ""]
    if irn is not None:
        ratios = own.downscale / irn.downscale, own.restore / irn.restore
        beside = [f"{irn.downscale:.3g}", f"{irn.restore:.3g}", f"{ratios[0]:.1f}", f"{ratios[1]:.1f}"]
    cells = [f"x{scale:g}", precision, str(batch), f"{own.downscale:.3g}", f"{own.restore:.3g}", *beside, f"{share:.0%}"]
    return "| " + " | ".join(cells) + " |"


def quality(device: torch.device, precisions: list[str], folder: Path | None) -> None:
    """Print what less precision changes: PSNR of restores, and levels of the LR, against float32 on the same device."""
    exact = Engine(shipped(), device, precision=torch.float32)
    images = list(read(folder)) if folder else [smooth(480, seed) for seed in range(4)]
    print(f"\n| scale | precision | restore's PSNR minus float32's, dB ({len(images)} images) | LR within one level |")
    print("|---" * 4 + "|")
    for scale, precision in product((1.5, 2, 3, 4), precisions):
        coarse, lost, within = Engine(shipped(), device, precision=PRECISIONS[precision]), [], []
        for pixels in images:
            size = pixels.shape[:2]
            lr_size = (math.ceil(size[0] / scale), math.ceil(size[1] / scale))
            lrs = [engine.downscale(pixels, lr_size) for engine in (exact, coarse)]
            both = [engine.restore(lr, size) for engine, lr in zip((exact, coarse), lrs, strict=True)]
            whole, half = (psnr(torch.from_numpy(x / 255), torch.from_numpy(pixels / 255)) for x in both)
            lost.append(half - whole)
            within.append((np.abs(lrs[0].astype(int) - lrs[1]) <= 1).mean())
        print(f"| x{scale:g} | {precision} | {statistics.mean(lost):+.4f} | {statistics.mean(within):.4%} |", flush=True)


def smooth(side: int, seed: int) -> np.ndarray:
    """Draw a picture of waves, long ones the strongest."""
    noise = np.random.default_rng(seed).standard_normal((3, side, side))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side))) + 1 / side
    waves = np.fft.ifft2(np.fft.fft2(noise) / frequency**2).real
    waves /= waves.std(axis=(1, 2), keepdims=True)
    return (127 + 50 * waves).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy()


def read(folder: Path) -> Iterator[np.ndarray]:
    """Read PNG files, each cropped to a multiple of 12."""
    from PIL import Image

    for path in sorted(folder.glob("*.png")):
        pixels = np.array(Image.open(path).convert("RGB"))
        yield np.ascontiguousarray(pixels[: len(pixels) // 12 * 12, : pixels.shape[1] // 12 * 12])


if __name__ == "__main__":
    main()
