"""How good the restored images are: measures everything in docs/quality.md and writes it, pictures included.

    python -m benchmarks.quality --eval FOLDER            # FOLDER holds set5, set14 and bsd100
    python -m benchmarks.quality --eval FOLDER --quick --weights run/iarn.safetensors --out build/quality

Every figure comes from this one run but those marked as published. It takes long on a CPU, says on standard error where it
is, and writes OUT/quality.md last.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import time
from pathlib import Path

import torch
from safetensors.torch import load

from benchmarks.quality_page.bench import Bench
from benchmarks.quality_page.curve import curve_section
from benchmarks.quality_page.effort import effort_section
from benchmarks.quality_page.pictures import drawings_section, lr_section
from benchmarks.quality_page.scores import cycles_section, quality_section, set_scores, smooth_section
from benchmarks.support.page import place, table
from iarn.weights import read_metadata, unpack
from jobs.rescale import read_weights
from jobs.training.evaluate import crop, load_images
from pipeline.core.errors import PipelineError
from pipeline.engines.engine import Engine, choose_device

SETS = {"set5": "Set5", "set14": "Set14", "bsd100": "BSD100"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eval", type=Path, required=True, metavar="FOLDER", help="holds set5, set14 and bsd100")
    parser.add_argument("--weights", type=Path, help="weights file; the shipped one unless given")
    parser.add_argument("--samples", type=Path, default=Path("samples"), help="photographs whose LRs are shown")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of quality.md and images/")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    parser.add_argument("--quick", action="store_true", help="Set5 and few scales, to try this script")
    options = parser.parse_args()
    try:
        write(prepare(options), command(options))
    except PipelineError as error:
        raise SystemExit(f"quality: {error}") from None


def prepare(options: argparse.Namespace) -> Bench:
    """Read weights and images; end with a sentence where a folder is missing."""
    names = ["set5"] if options.quick else list(SETS)
    for folder in (*(options.eval / name for name in names), options.samples):
        if not folder.is_dir():
            raise SystemExit(
                f"quality: {folder} is missing; --eval names a folder of {', '.join(SETS)}, --samples one of photos."
            )
    weights = read_weights(options.weights)
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    return Bench(
        engine=Engine(weights, choose_device(options.device)),
        network=unpack(weights),
        weights=weights,
        sets={SETS[name]: [crop(pixels) for _, pixels in load_images(str(options.eval / name))] for name in names},
        samples=options.samples,
        out=options.out,
        quick=options.quick,
        begun=time.monotonic(),
    )


def write(bench: Bench, made_by: str) -> None:
    """Measure everything, then write the document."""
    scores = {name: set_scores(bench, name) for name in bench.sets}
    sections = [
        heading(bench, made_by),
        quality_section(bench, scores),
        curve_section(bench),
        effort_section(bench),
        cycles_section(scores),
        smooth_section(bench, scores),
        drawings_section(bench),
        lr_section(bench),
    ]
    path = bench.out / "quality.md"
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    bench.say(f"{path} is written.")


def command(options: argparse.Namespace) -> str:
    """Return the command of this run, places outside the current folder by words of their own."""
    words = ["python", "benchmarks/quality.py", "--eval", place(options.eval, "FOLDER")]
    if options.weights:
        words += ["--weights", place(options.weights, "WEIGHTS")]
    if options.out != Path("docs"):
        words += ["--out", place(options.out, "OUT")]
    return shlex.join([*words, *(["--quick"] if options.quick else [])])


def heading(bench: Bench, made_by: str) -> str:
    """Return the title, the command, and which weights these are."""
    metadata = read_metadata(bench.weights)
    about, config = json.loads(metadata.get("about", "{}")), json.loads(metadata["config"])
    tensors = load(bench.weights).values()
    rows = [
        ("digest of config and tensors", f"`{metadata['digest']}`"),
        ("SHA-256 of the file", f"`{hashlib.sha256(bench.weights).hexdigest()}`"),
        ("size", f"{len(bench.weights):,} bytes"),
        ("parameters", f"{sum(tensor.numel() for tensor in tensors):,}"),
        ("stored as", ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}))),
        ("steps of training", f"{about['steps']:,}" if "steps" in about else "not said in the file"),
        ("blocks per stage, width, clamp", f"{config['blocks']}, {config['width']}, {config['clamp']:g}"),
    ]
    quick = "\n**A quick run, to try the script: Set5 and few scales only.**\n" if bench.quick else ""
    versions = f"torch {torch.__version__.partition('+')[0]} on a {'CPU' if bench.engine.device.type == 'cpu' else 'GPU'}"
    return f"""# Quality

Everything on this page was measured in one run of

```sh
{made_by}
```
{quick}
with {versions}, but for the figures marked as published. `FOLDER` holds set5, set14 and bsd100 as lossless
PNG; none of them was trained on. No latent is used anywhere.

{table(("weights", ""), rows)}"""


if __name__ == "__main__":
    main()
