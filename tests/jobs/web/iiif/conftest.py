"""A service whose entries are images to zoom into: one of several tiles, a turned one, with alpha, grey, of 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from pipeline.core.records import Tier
from pipeline.pictures.codecs import encode_png
from tests.support.http_site import Site
from tests.support.pictures import photo, saved, srgb_profile
from tests.support.workshop import Rescaled, Sample, as_tar, rescale

TURNED = "é ü/100%/#?&+.jpg"
LICENCE = "http://creativecommons.org/licenses/by/4.0/"
KEYS = ("alpha.png", "deep.png", "grey.png", "tiles.png", TURNED)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Rescaled:
    """The archive."""
    folder = tmp_path_factory.mktemp("iiif")
    tags, xmp = Image.Exif(), f'<cc:license rdf:resource="{LICENCE}"/>'.encode()
    tags[0x0112], tags[0x010E], tags[0x8298] = 6, "A turned view", "somebody"
    deep = photo(40, 50, 3, 2).astype(np.uint16) * 257
    files = [
        Sample(key="alpha.png", data=saved(photo(26, 33, 4, 1), "PNG")),
        Sample(key="deep.png", data=encode_png(deep)),
        Sample(key="grey.png", data=saved(photo(30, 44, 1, 5), "PNG")),
        Sample(key="page.html.jpg", data=b"<script>alert(1)</script>"),
        Sample(key="tiles.png", data=saved(photo(100, 540, 3, 3), "PNG")),
        Sample(key=TURNED, data=saved(photo(24, 36, 3, 4), "JPEG", exif=tags, icc_profile=srgb_profile(), xmp=xmp)),
    ]
    return rescale(as_tar(folder / "source", files), folder / "archive", tier=Tier.BALANCED)


@pytest.fixture(scope="session")
def zoom(images: Rescaled) -> Iterator[Site]:
    """The service."""
    made = Site(images, origin="*")
    with closing(made.shelf):
        yield made
