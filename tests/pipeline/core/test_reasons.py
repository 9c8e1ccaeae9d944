"""Sentences by class: every error has one of its own, so has every other reason, and no image's name makes another."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.archives import errors as of_archives
from pipeline.assets import shards
from pipeline.cluster import errors as of_clusters
from pipeline.core import errors
from pipeline.core.reasons import FILE_KEPT, OTHER, REASONS, by_class, reason_class
from pipeline.reading import errors as of_reading
from tests.pipeline.core.test_errors import LEAVES
from tests.support import workshop

ROOT = Path(__file__).parents[3]
URI, KEY = "s3://bucket/trips/a.jpg", "trips/a.jpg"

ERRORS = {
    "worker-lost": of_clusters.WorkerLost("000001-a", "its node, or the way there, is gone"),
    "decoder-died": errors.DecoderDied("its decoding ends the process (SIGSEGV)"),
    "undecodable": errors.UndecodableImage("it is cut off"),
    "unsupported": errors.UnsupportedImage("it has 16 bits per channel"),
    "too-large": errors.ImageTooLarge(30_000, 30_000, 512_000_000),
    "size-not-reachable": errors.SizeNotReachable(10, 10, 20, 20, "that would enlarge it"),
    "unwritable": errors.UnwritableImage("webp", "its side is above 16383"),
    "store-unavailable": errors.StoreUnavailable(URI, "503 SlowDown"),
    "access-denied": errors.AccessDenied(URI, "403"),
    "credentials-missing": errors.CredentialsMissing(URI, "NoCredentialsError"),
    "credentials-refused": errors.CredentialsRefused(URI, "GetObject: ExpiredToken"),
    "not-found": errors.NotFound(URI),
    "exists": errors.AlreadyExists(URI),
    "invalid-key": errors.InvalidKey("s3://bucket", "a//b", "it has an empty part"),
    "source-changed": errors.SourceChanged(URI, "a", "b"),
    "damaged-shard": errors.DamagedShard("s3://bucket/a.tar", "it ends in the middle"),
    "damaged-object": errors.DamagedObject("s3://bucket/plan.json", "it is no JSON"),
    "damaged-entry": errors.DamagedEntry(KEY, "latent", "it is cut off"),
    "damaged-latent": errors.DamagedLatent("it does not begin as one"),
    "checksum-mismatch": of_archives.ChecksumMismatch(URI, "SHA-256", "ab" * 32, "cd" * 32),
    "no-image-column": errors.NoImageColumn("s3://bucket/a.parquet", None, ("id", "text")),
    "unsupported-shard": errors.UnsupportedShard("s3://bucket/a.tar.zst", "it is compressed with Zstandard; store it as .tar"),
    "not-an-archive": of_archives.NotAnArchive("s3://bucket/small"),
    "unsupported-format": of_archives.UnsupportedFormat("s3://bucket/plan.json", "9", "3"),
    "invalid-weights": errors.InvalidWeights("of the archive", "its digest is ab…, cd… was expected"),
    "device-unavailable": errors.DeviceUnavailable("cuda", "0 CUDA devices are visible"),
    "cluster-unavailable": of_clusters.ClusterUnavailable("head:6379", "Connection refused"),
    "token-wanted": of_clusters.TokenWanted("head:6379", "Invalid or missing authentication token"),
    "resources-unavailable": of_clusters.ResourcesUnavailable("4 actors of 2 CPUs and 1 GPUs", "room for 0"),
    "worker-not-started": of_clusters.WorkerNotStarted("3 in a row failed; the last: it ended"),
    "group-lost": of_clusters.GroupLost("they see different checkpoints"),
    "plan-conflict": errors.PlanConflict("s3://bucket", ("scale 2, not 4",)),
    "empty-source": errors.EmptySource("s3://bucket"),
    "nothing-written": of_archives.NothingWritten("s3://bucket/small"),
    "nothing-selected": of_archives.NothingSelected("s3://bucket/small", "the glob x*"),
    "no-such-entry": of_reading.NoSuchEntry("s3://bucket/small", KEY),
    "ambiguous-key": of_reading.AmbiguousKey("s3://bucket/small", KEY, ("000000000-a", "000000001-b")),
    "not-kept": of_reading.NotKept(KEY, "original", "its tier is lean; its image is restored"),
    "not-read": of_reading.NotRead(KEY, ("lr", "latent")),
    "overloaded": of_reading.Overloaded("all replicas are busy"),
    "not-ready": of_reading.NotReady("small", 3, 9),
    "replaced": of_reading.Replaced("s3://bucket/small"),
    "out-of-time": of_reading.RanOutOfTime(KEY, 60),
    "invalid-option": errors.InvalidOption("AWS configuration", "NoRegionError", "You must specify a region."),
}
"""Each error of the tree, by the class of its sentence."""

OTHERS = [
    ("stalled", "It finished no image within 120 minutes. (after 3 tries)"),
    ("memory", "OutOfMemoryError: CUDA out of memory. (at engine.py:99)"),
    ("memory", "RuntimeError: DefaultCPUAllocator: can't allocate memory (at engine.py:99)"),
    ("memory", str(of_clusters.WorkerLost("000001-a", "Task was killed due to the node running low on memory"))),
    ("unforeseen", "ValueError: no one thought of this (at rescale.py:99)"),
    ("unforeseen", "TypeError: cannot pickle '_io.BufferedReader' object"),
    ("decoder-died", "cannot be decoded: its decoding took more than 600 s"),
    ("below-floor", f"{FILE_KEPT}: no latent brings it to the floor of 44 (psnr)"),
    ("below-floor", "not rescaled: no latent brings it to the floor of 44 (psnr)"),
    ("does-not-pay", f"{FILE_KEPT}: its LR and latent would take 9 bytes, the source 8"),
    ("does-not-pay", "not rescaled: its LR and what stands beside it take 9 bytes, the source 8"),
    ("beyond-restoring", f"{FILE_KEPT}: it has 16 bits per channel, which no restore brings back"),
    ("kept-whole", f"{FILE_KEPT}: a restore would lack iptc"),
    ("kept-whole", f"{FILE_KEPT} beside its LR: a restore would lack iptc"),
    ("unsupported", "not rescaled: it is CMYK; 8-bit grey, RGB and palette pictures of one frame are"),
    ("size-not-reachable", str(errors.SizeNotReachable(9, 9, 5, 5, "it is no larger than the target"))),
    ("other-file", shards.KEPT),
    ("no-image", "no image beside these members; members of one sample must be adjacent in the tar"),
    ("no-image", "no image beside this file"),
    ("no-image", "row 7 has no image"),
    ("no-image", "row 7 has the path a.jpg but no image"),
    ("too-many-bytes", "its 3000000000 bytes are more than an entry can hold, 2147483647"),
    (
        "not-given",
        "the store lists this object and does not give it: 'a//b' cannot be a key below s3://bucket: it has an empty part.",
    ),
    ("broken-link", "the tar holds a hard link here, to a.jpg, which is no file before it in the tar"),
    ("no-file", "the tar holds a symbolic link here, not a file; only files are read"),
    ("cut-short", "the tar is damaged behind it, sidecars may be missing"),
    ("sidecar-left-out", "its sidecar a.txt was left out: 3000000000 bytes are more than an entry can hold"),
    ("kept-whole", "its file is kept beside its LR: a restore would lack layers"),
    ("written-otherwise", "written as PNG: GIF cannot hold what was restored"),
    ("renamed", "stored under a%5C.jpg: the name a\\.jpg is not a safe relative path"),
    ("renamed", "stored under a~2.jpg: another asset of this shard has the name a.jpg, or a sidecar's beside it"),
    ("entries-missing", "3 entries found, 4 committed"),
    ("other-source", "its source is not the one that was rescaled (SHA-256)"),
    ("floor-missed", "it restores to 38.1 (psnr), below the floor of 40"),
    ("floor-missed", "it is stored with None (psnr), below the floor of 40"),
    ("restores-worse", "it restores to 38.10 dB, 40.2 dB are stored"),
    ("restores-worse", "its pixels come back at 38.10 dB, not as they were"),
]
"""Every other sentence that an entry, a failure or a shard may have as its reason."""

SENTENCES = [*((name, str(error)) for name, error in ERRORS.items()), *OTHERS]


def test_every_error_has_a_class_of_its_own() -> None:
    """Protects counts and alarms: each class of the error tree is here, no two have one name, and none is left to ``other``."""
    assert {type(error) for error in ERRORS.values()} == set(LEAVES)
    assert len(ERRORS) == len(LEAVES)


@pytest.mark.parametrize(("name", "text"), SENTENCES)
def test_a_sentence_is_of_its_class(name: str, text: str) -> None:
    """Protects the same counts: a sentence tells its class, also after several tries."""
    assert reason_class(text) == name
    assert reason_class(f"{text} (after 3 tries)") == name


NOTE = "stored under b.jpg: the name b\\.jpg is not a safe relative path"
IMAGES = (
    "undecodable",
    "unsupported",
    "too-large",
    "size-not-reachable",
    "does-not-pay",
    "unwritable",
    "decoder-died",
    "below-floor",
)
NOTES = ("other-file", "no-image", "too-many-bytes", "not-given", "broken-link", "no-file", "cut-short", "sidecar-left-out")


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, text in SENTENCES if name in IMAGES + NOTES])
def test_of_several_reasons_the_weightiest_counts(name: str, text: str) -> None:
    """Protects the counts of what is lost: an entry's reason may be an error and a note, or several notes, of which one is only
    that it has another name."""
    assert reason_class(f"{text}; {NOTE}" if name in IMAGES else f"{NOTE}; {text}") == name


def test_every_class_has_a_sentence() -> None:
    """Protects the table: no class is in it that nothing is of, and nothing is of ``other``."""
    assert {name for name, _ in SENTENCES} == set(REASONS)
    assert OTHER not in REASONS


HOSTILE = [
    "no image",
    "out of memory",
    "is damaged (1)",
    "renamed",
    "does not exist.",
    "cannot be decoded",
    "Error: x",
    "the floor of",
]


@pytest.mark.parametrize("word", HOSTILE)
def test_no_name_makes_another_class(word: str) -> None:
    """Protects counts from names: whatever a file, a bucket or a shard is called, its sentences are of their class."""
    for name, text in SENTENCES:
        assert reason_class(text.replace("a.jpg", f"{word}.jpg")) == name
        assert reason_class(text.replace("s3://bucket", f"/data/{word}")) == name
        assert reason_class(text.replace("000001-a", f"000001-{word}")) == name


def literals(call: str) -> Iterator[str]:
    """Yield the first argument of every call of a name in the code, where it is written there."""
    for layer in ("pipeline", "jobs"):
        for path in (ROOT / layer).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == call:
                    first = node.args[0]
                    if isinstance(first, ast.Constant):
                        yield str(first.value)


def test_every_option_is_known() -> None:
    """Protects the one sentence without words of its own: whatever InvalidOption is told of, it is known as that."""
    options = set(literals("InvalidOption"))
    assert len(options) > 40
    for option in options:
        assert reason_class(str(errors.InvalidOption(option, "x", "give another."))) == "invalid-option", option


def test_the_classes_are_bounded() -> None:
    """Protects Prometheus: whatever sentences there are, they make a label of a bounded set, and are counted by it."""
    found = by_class([f"thing {number} broke" for number in range(1000)] + ["row 1 has no image"] * 2)
    assert found == {OTHER: 1000, "no-image": 2}
    assert len(REASONS) < 100
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in REASONS)


def test_real_reasons_have_classes(tmp_path: Path) -> None:
    """Protects all of this from sentences that nobody wrote down here: the reasons of a folder of odd files have classes."""
    samples = [
        *workshop.samples(2),
        workshop.Sample(key="broken.jpg", data=b"no picture"),
        workshop.Sample(key="e.png", data=b""),
    ]
    folder = Path(workshop.as_folder(tmp_path / "source", samples))
    (folder / "notes.doc").write_bytes(b"words")
    (folder / "a\\b.png").write_bytes(samples[0].data)
    made = workshop.rescale(str(folder), tmp_path / "archive", all_files=True)
    reasons = [entry.reason for entry in made.entries if entry.reason]
    assert len(reasons) >= 4
    assert OTHER not in by_class(reasons)
    told = {kind for report in made.reports for kind in report.kept}
    assert told == {"undecodable", "other-file"}
