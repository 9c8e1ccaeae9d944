"""Weights, their config and a digest of both in one safetensors file.

The header's metadata holds ``config`` (JSON), ``digest`` (SHA-256 over the config and every tensor) and ``about`` (JSON:
how the weights came to be). Weights are read as safetensors only, never unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from iarn.network import NetworkConfig, Rescaler


class WeightsError(ValueError):
    """A weights file is broken, or not what its digest says."""


def pack(network: Rescaler, about: Mapping[str, Any], *, half: bool = False) -> bytes:
    """Return ``network`` as the bytes of a weights file, always the same; ``about`` are plain JSON values.

    ``half`` stores float16, which takes half the bytes and moves what is restored by less than 0.01 dB.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in network.state_dict().items()}
    config = json.dumps(asdict(network.config), sort_keys=True)
    metadata = {"config": config, "digest": _digest(config, tensors), "about": json.dumps(about, sort_keys=True)}
    return _canonical(save_tensors(tensors, metadata))


def unpack(data: bytes) -> Rescaler:
    """Return the network of a weights file, on the CPU, in float32 and in evaluation mode.

    Raises WeightsError where the file is not safetensors, its digest does not match, or its tensors do not fit its config.
    """
    metadata, config = read_metadata(data), read_config(data)
    try:
        tensors = load_tensors(data)
        network = Rescaler(config)
    except (SafetensorError, TypeError, ValueError) as error:
        raise WeightsError(f"it is no weights file of this project ({error})") from error
    found = _digest(metadata["config"], tensors)
    if found != metadata.get("digest"):
        raise WeightsError(f"its digest is {found[:16]}…, {str(metadata.get('digest'))[:16]}… was expected; get the file again")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"its tensors do not fit its config ({str(error).splitlines()[-1].strip()})") from error
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def read_config(data: bytes) -> NetworkConfig:
    """Return what a weights file's header says of its network; WeightsError where that is none."""
    metadata = read_metadata(data)
    try:
        before = {"thirds": [], "light": 0, "clean": False}  # older weights have no word of these
        config = before | json.loads(metadata["config"])
        return NetworkConfig(**config | {name: tuple(config[name]) for name in ("blocks", "thirds")})
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"it is no weights file of this project ({error})") from error


def read_metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a weights file's header; WeightsError where there is none."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        return dict(header["__metadata__"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError("it is no safetensors file with metadata; give one that `iarn train` wrote") from error


def _canonical(data: bytes) -> bytes:
    """Sort the header, whose order safetensors draws anew each time: a plan names weights by the digest of their file."""
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _digest(config: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(config.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
