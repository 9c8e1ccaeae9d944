"""The weights that ship with this package, as bytes: for whoever only passes them on, without PyTorch."""

from __future__ import annotations

from importlib.resources import files


def shipped() -> bytes:
    """Return the weights file that ships with this package."""
    return (files("iarn") / "pretrained" / "iarn.safetensors").read_bytes()
