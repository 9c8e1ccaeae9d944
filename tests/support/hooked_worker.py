"""The pipeline's own rescaling with a test's hooks in the actor's process: its environment, a pause, poisoned codecs."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import rescale
from pipeline.decoders.apart import DecoderApart
from pipeline.rescale import RescaleWorker
from pipeline.stores.s3 import S3Store
from pipeline.works import RescaleWork
from tests.support import poison

DECODE_SECONDS = 20
"""For a picture that never ends; a sound one has to be decoded within them on a busy machine as well."""


BACKOFF = 0.05
"""Seconds: patience of a store that is before a proxy."""


@dataclass(frozen=True, kw_only=True)
class HookedWork:
    """Rescales as ``RescaleWork`` does, on the CPU.

    ``environment`` is set first. Where ``pause`` names a file, the network waits for as long as it is there, and says so by
    another beside it. ``poisoned`` has codecs fall for ``tests.support.poison``. ``file_bytes`` is what a local file may have.
    """

    archive: str
    environment: Mapping[str, str] = field(default_factory=dict)
    pause: str | None = None
    poisoned: bool = False
    file_bytes: int | None = None
    device: str = "cpu"
    threads: int = 1
    halvings: int = 0

    def start(self) -> RescaleWorker:
        os.environ.update(self.environment)
        tempfile.tempdir = None  # read anew
        S3Store.BACKOFF = BACKOFF
        if self.poisoned:
            poison.install()
            rescale.DecoderApart = partial(DecoderApart, DECODE_SECONDS)
        if self.file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_bytes, self.file_bytes))
        worker = RescaleWork(archive=self.archive, device="cpu", threads=self.threads, halvings=self.halvings).start()
        if self.pause is not None:
            worker.engine = _Pausing(worker.engine, Path(self.pause))
        return worker


class _Pausing:
    """An engine that stands still on demand."""

    def __init__(self, engine: Any, pause: Path) -> None:
        self._engine, self._pause = engine, pause

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def downscale_many(self, *arguments: Any, **options: Any) -> Any:
        while self._pause.exists():
            self._pause.with_suffix(".reached").touch()
            time.sleep(0.02)
        return self._engine.downscale_many(*arguments, **options)
