"""The IIIF's own validator of image servers: each of its tests for level 2 of the Image API 3.0, against the service."""

from __future__ import annotations

import random
from collections.abc import Iterator
from urllib.request import urlopen

import numpy as np
import pytest

from pipeline.core.records import Tier
from tests.support.commands import GUARD
from tests.support.gallery_service import served
from tests.support.pictures import saved
from tests.support.workshop import Sample, as_tar, rescale

validator = pytest.importorskip("iiif_validator.validator", reason="needs iiif-validator and libmagic", exc_type=ImportError)

KEY = "67352ccc-d1b0-11e1-89ae-279075081939.png"
LEVEL = 2
SUITE = validator.TestSuite(validator.ValidationInfo())
NAMES = sorted(name for name, told in SUITE.list_tests("3.0").items() if told["level"] <= LEVEL)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service that has the validator's picture: a hundred squares, each of a colour of its own."""
    colours = np.array(validator.ValidationInfo().colorInfo, np.uint8).swapaxes(0, 1)
    squares = colours.repeat(100, 0).repeat(100, 1)
    folder = tmp_path_factory.mktemp("validator")
    source = as_tar(folder / "source", [Sample(key=KEY, data=saved(squares, "PNG"))])
    with served({"demo": rescale(source, folder / "archive", tier=Tier.BALANCED).uri}, origin="*") as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_level_2(service: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Protects viewers of all kinds: the server is one of level 2, as the IIIF understands it."""
    monkeypatch.setattr(validator, "urlopen", lambda request, **_: urlopen(request, timeout=GUARD))
    random.seed(name)
    result = validator.ImageAPI(KEY, service.removeprefix("http://"), "iiif/3/demo", version="3.0", debug=False)
    SUITE.run_test(name, result)
    assert result.exception is None, (result.exception, result.urls)


def test_there_are_tests() -> None:
    """Protects the test above: the validator has those that the specification's level 2 is made of."""
    assert len(NAMES) >= 30
    assert {"region_percent", "size_bwh", "size_noup", "rot_full_basic", "quality_bitonal", "jsonld", "cors"} <= set(NAMES)
