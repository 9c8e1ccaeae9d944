"""A bucket on a real S3 server of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "iarn-benchmark"


@contextmanager
def bucket(source: Path | None = None) -> Iterator[str]:
    """Give the URI of a bucket on a SeaweedFS that is started for this, a folder's files in it below ``source/``."""
    from tests.support.seaweed import SeaweedServer  # here, for without S3 no client of it need be installed

    with SeaweedServer() as server:
        os.environ |= server.environment()
        server.client.create_bucket(Bucket=NAME)
        for path in source.iterdir() if source else ():
            server.client.upload_file(str(path), NAME, f"source/{path.name}")
        yield f"s3://{NAME}"
