"""`iarn serve` on a folder of archives, one of which is in the making and another of which comes later."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pipeline.reading.requests import ImageRequest
from pipeline.reading.service import Restorer
from pipeline.serving.shelf import Shelf
from tests.support.commands import GUARD, IARN, Running, home
from tests.support.workshop import as_tar, begin, rescale, rescaler, samples


def status(url: str) -> int:
    """Return the status of what is at an address."""
    try:
        with urllib.request.urlopen(url, timeout=GUARD) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def get(url: str) -> bytes:
    """Return what is at an address."""
    with urllib.request.urlopen(url, timeout=GUARD) as answer:
        data: bytes = answer.read()
        return data


@pytest.mark.ray
def test_what_comes_later_is_served_without_a_restart(tmp_path: Path) -> None:
    """Protects a service that stays up: a later shard and a later archive are listed, found, and restored by a replica that
    was started before them; the line that tells the address names what there was."""
    source = as_tar(tmp_path / "source", samples(2, folder="a/"), "a.tar")
    (tmp_path / "archives").mkdir()
    archive = begin(as_tar(tmp_path / "source", samples(3, folder="b/"), "b.tar"), tmp_path / "archives" / "first")
    first, second = archive.shards()
    rescaler(archive).run(first)
    options = ("--port", 0, "--device", "cpu", "--cpus-per-replica", 0.5, "--seconds", GUARD, "--refresh", 1)
    with home() as environment, Running(tmp_path, environment, IARN, "serve", tmp_path / "archives", *options) as command:
        command.until(lambda: "Serving" in command.out)
        match = re.fullmatch(r"Serving first at (http://127\.0\.0\.1:\d+)/\n", command.out)
        assert match is not None
        entry = f"{match[1]}/archives/first/assets/b%2F001.jpg"
        assert status(f"{entry}/lr") == 404
        rescaler(archive).run(second)
        rescale(source, tmp_path / "archives" / "later")
        command.until(lambda: status(f"{entry}/lr") == 200)
        later = entry.replace("first", "later")
        command.until(lambda: status(f"{later}/lr") == 200)
        told = json.loads(get(f"{match[1]}/archives"))["archives"]
        assert [(each["name"], each["entries"]) for each in told] == [("first", 5), ("later", 5)]
        command.until(lambda: status(f"{match[1]}/archives/later/assets") == 200)
        for name, url in (("first", entry), ("later", later)):
            shelf = Shelf(name, str(tmp_path / "archives" / name))
            expected = Restorer([shelf.uri], device="cpu").restore(shelf.place("b/001.jpg"), ImageRequest())
            assert get(f"{url}/image?format=png&v={shelf.version}") == expected.data
        command.terminate()
        assert command.ended() == 0
        assert "Traceback" not in command.err
