"""Weights files: they come back whole, and anything else is one clear error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from iarn.network import NetworkConfig
from iarn.weights import WeightsError, pack, read_metadata, unpack
from tests.support.networks import SMALL, THIRDS, noise, random_network, random_weights

EARLIER = Path(__file__).resolve().parent.parent / "data" / "archives" / "model"
TINY = NetworkConfig(blocks=(1,), width=2)
DATA = random_weights(TINY)
HEADER = 8 + int.from_bytes(DATA[:8], "little")


def with_metadata(data: bytes, **changes: str | None) -> bytes:
    """Return a weights file with other metadata; None removes a value."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    for name, value in changes.items():
        if value is None:
            del header["__metadata__"][name]
        else:
            header["__metadata__"][name] = value
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def test_a_network_comes_back_whole() -> None:
    """Protects archives: the network of a file is the one that was packed, ready to use and not to train."""
    network = random_network(SMALL, seed=3)
    found = unpack(pack(network, {"steps": 12}))
    assert found.config == network.config
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    for name, tensor in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    x = noise(1, 3, 13, 10)
    for one, other in zip(found.downscale(x, (5, 4)), network.downscale(x, (5, 4)), strict=True):
        torch.testing.assert_close(one, other)


def test_half_precision_takes_half_and_restores_alike() -> None:
    """Protects small downloads: in float16 the file is half as large, comes back in float32 and restores the same picture."""
    network = random_network(SMALL, seed=3)
    whole, half = pack(network, {}), pack(network, {}, half=True)
    assert len(half) < 0.6 * len(whole)
    found = unpack(half)
    assert {tensor.dtype for tensor in found.state_dict().values()} == {torch.float32}
    x = noise(1, 3, 13, 10)
    torch.testing.assert_close(found.downscale(x, (5, 4))[0], network.downscale(x, (5, 4))[0], rtol=0, atol=2e-3)
    assert read_metadata(half)["digest"] != read_metadata(whole)["digest"]


def test_the_same_network_gives_the_same_bytes() -> None:
    """Protects resuming: a plan names its model by the digest of the file, so packing again must not change it."""
    network = random_network(TINY)
    assert len({pack(network, {"steps": 1, "seed": 0}) for _ in range(8)}) == 1


def test_metadata_tells_what_the_weights_are() -> None:
    """Protects provenance: config, digest and how the weights came to be can be read without loading them."""
    metadata = read_metadata(pack(random_network(TINY), {"steps": 12, "seed": 0}))
    assert json.loads(metadata["config"]) == {"blocks": [1], "thirds": [], "light": 0, "clean": False, "width": 2, "clamp": 1.0}
    assert json.loads(metadata["about"]) == {"steps": 12, "seed": 0}
    assert len(metadata["digest"]) == 64


def test_weights_from_before_keep_their_lattices() -> None:
    """Protects old archives: a config that has no word of splits by three, or of clean LRs, has no weights for them."""
    (earlier,) = EARLIER.iterdir()
    data = earlier.read_bytes()
    network = unpack(data)
    assert json.loads(read_metadata(data)["config"]).keys() == {"blocks", "width", "clamp"}
    assert (network.config.thirds, network.config.clean, network.config.strides) == ((), False, (1, 2, 4))
    for config in (THIRDS, replace(THIRDS, clean=True)):
        assert unpack(random_weights(config)).config == config


def test_the_digest_is_of_config_and_tensors() -> None:
    """Protects identity: equal networks have equal digests, whatever is said about them; others do not."""
    digest = read_metadata(DATA)["digest"]
    assert read_metadata(pack(random_network(TINY), {"made": "elsewhere"}))["digest"] == digest
    assert read_metadata(random_weights(TINY, seed=1))["digest"] != digest
    assert read_metadata(random_weights(NetworkConfig(blocks=(1,), width=2, clamp=0.9)))["digest"] != digest
    assert read_metadata(pack(unpack(DATA), {}))["digest"] == digest


@given(st.integers(HEADER, len(DATA) - 1), st.integers(1, 255))
def test_a_flipped_byte_in_a_tensor_is_found(position: int, flip: int) -> None:
    """Protects restores years later: damaged weights are refused instead of restoring other pictures."""
    damaged = bytearray(DATA)
    damaged[position] ^= flip
    with pytest.raises(WeightsError, match=r"digest.*get the file again"):
        unpack(bytes(damaged))


@given(st.integers(0, HEADER - 1), st.integers(1, 255))
def test_a_flipped_byte_in_the_header_does_no_harm(position: int, flip: int) -> None:
    """Protects restores years later: a damaged header is refused, or it is one that changes no weight."""
    damaged = bytearray(DATA)
    damaged[position] ^= flip
    try:
        network = unpack(bytes(damaged))
    except WeightsError:
        return
    expected = unpack(DATA)
    assert network.config == expected.config
    for name, tensor in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)


@given(st.integers(0, len(DATA) - 1))
def test_a_truncated_file_is_refused(length: int) -> None:
    """Protects against half a download: however much is missing, it is one clear error."""
    with pytest.raises(WeightsError):
        unpack(DATA[:length])


@given(st.binary(max_size=200))
def test_anything_else_is_refused(data: bytes) -> None:
    """Protects callers: bytes that are no weights file never raise anything but WeightsError."""
    with pytest.raises(WeightsError, match="no safetensors file"):
        unpack(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x95pickle",
        (8).to_bytes(8, "little") + b"[1, 2, 3]",
        (2**63).to_bytes(8, "little") + b"{}",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        save({"x": torch.zeros(2)}),
        save({"x": torch.zeros(2)}, {"config": "{}"}),
        save({"x": torch.zeros(2)}, {"config": "[1]", "digest": ""}),
        save({"x": torch.zeros(2)}, {"config": '{"blocks": [1], "depth": 3}', "digest": ""}),
        save({"x": torch.zeros(2)}, {"config": '{"blocks": [0]}', "digest": ""}),
        with_metadata(DATA, config=None),
        with_metadata(DATA, digest=None),
        with_metadata(DATA, digest="0" * 64),
    ],
    ids=lambda _: "",
)
def test_other_files_are_refused(data: bytes) -> None:
    """Protects callers: a pickle, another model's file and missing metadata are one clear error each, in one line."""
    with pytest.raises(WeightsError) as caught:
        unpack(data)
    assert "\n" not in str(caught.value)


def test_the_config_of_another_network_is_refused() -> None:
    """Protects against a mix-up: tensors under a config that is not theirs do not pass, even with a digest to match."""
    config = read_metadata(random_weights(NetworkConfig(blocks=(1,), width=3)))["config"]
    with pytest.raises(WeightsError, match="digest"):
        unpack(with_metadata(DATA, config=config))
    network = random_network(TINY)
    network.config = NetworkConfig(blocks=(1,), width=3)
    with pytest.raises(WeightsError, match="do not fit its config") as caught:
        unpack(pack(network, {}))
    assert "\n" not in str(caught.value)
