"""Services in this process, with their archives: for a client of HTTP, and for a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from pipeline.core.records import Tier
from tests.support.gallery_service import served
from tests.support.gallery_visit import ODD, Visit, sample
from tests.support.http_site import SAMPLES, Site
from tests.support.pictures import saved
from tests.support.workshop import Rescaled, Sample, as_tar, rescale


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Rescaled:
    """An archive of seven entries, one of them no image, with names that need care in a URL."""
    folder = tmp_path_factory.mktemp("http")
    return rescale(as_tar(folder / "source", SAMPLES), folder / "archive", tier=Tier.BALANCED)


@pytest.fixture(scope="module")
def site(archive: Rescaled) -> Iterator[Site]:
    """A service as it stands by itself."""
    made = Site(archive)
    with closing(made.shelf):
        yield made


@pytest.fixture
def fresh(archive: Rescaled) -> Iterator[Site]:
    """A service of this test alone."""
    made = Site(archive, most_restores=2)
    with closing(made.shelf):
        yield made


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Archives by name: photographs with a latent, one of them kept as it was; masters kept exactly; a damaged one."""
    folder = tmp_path_factory.mktemp("gallery")
    names = ("budgie", "canyon", "circuits", "colosseum", "kitten", "mural", "skyline", "spices")
    photos = [Sample(key=f"trips/{name}.png", data=saved(sample(name), "PNG")) for name in names]
    photos += [Sample(key=ODD, data=saved(sample("kitten", 90), "PNG")), Sample(key="broken.jpg", data=b"no picture at all")]
    masters = [Sample(key=f"{name}.png", data=saved(sample(name, 120), "PNG")) for name in ("mural", "spices")]
    made = {
        "photos": rescale(as_tar(folder / "a", photos), folder / "photos").uri,
        "masters": rescale(as_tar(folder / "b", masters), folder / "masters", tier=Tier.EXACT).uri,
        "damaged": rescale(as_tar(folder / "c", masters), folder / "damaged", tier=Tier.LEAN).uri,
    }
    (shard,) = (folder / "damaged" / "shards").glob("*.parquet")
    data = bytearray(shard.read_bytes())
    data[2000:2400] = bytes(400)
    shard.write_bytes(data)
    return made


@pytest.fixture(scope="module")
def service(archives: dict[str, str]) -> Iterator[str]:
    """The address of a service without a token."""
    with served(archives) as address:
        yield address


@pytest.fixture
def visit(browser: Any, service: str) -> Iterator[Callable[..., Visit]]:
    """Makes visits, which end with the test."""
    visits: list[Visit] = []

    def make(**options: Any) -> Visit:
        visits.append(Visit(browser, service, **options))
        return visits[-1]

    yield make
    for each in visits:
        each.page.close()
