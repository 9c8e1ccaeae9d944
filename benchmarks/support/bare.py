"""Stands in for safetensors where torch and numpy are all there is, as on a GPU lent for measurements; reads weights only."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType

import torch

TYPES = {"F32": torch.float32, "F16": torch.float16}


def load(data: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file (https://huggingface.co/docs/safetensors: header length, JSON header, data)."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (start + offset for offset in entry["data_offsets"])
            tensors[name] = torch.frombuffer(bytearray(data[begin:end]), dtype=TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def stand_in() -> None:
    """Take the place of safetensors, unless it is installed."""
    if importlib.util.find_spec("safetensors") is None:
        package, of_torch = ModuleType("safetensors"), ModuleType("safetensors.torch")
        package.SafetensorError = ValueError  # type: ignore[attr-defined]
        of_torch.load, of_torch.save = load, None  # type: ignore[attr-defined]
        sys.modules |= {"safetensors": package, "safetensors.torch": of_torch}


stand_in()
