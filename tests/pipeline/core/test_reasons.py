"""Sentences of errors by class: every error that can become a reason has one, and no image's name makes another."""

from __future__ import annotations

import pytest

from pipeline.archives.errors import ChecksumMismatch
from pipeline.cluster.errors import WorkerLost
from pipeline.core import errors
from pipeline.core.reasons import OTHER, REASONS, by_class, reason_class

SENTENCES = {
    "undecodable": errors.UndecodableImage("it is cut off"),
    "unsupported": errors.UnsupportedImage("it has 16 bits per channel"),
    "too-large": errors.ImageTooLarge(30_000, 30_000, 512_000_000),
    "size-not-reachable": errors.SizeNotReachable(10, 10, 20, 20, "that would enlarge it"),
    "below-floor": errors.DoesNotPay("no latent brings it to the floor of 44 (psnr)"),
    "does-not-pay": errors.DoesNotPay("its LR and what stands beside it take 9 bytes, the source 8"),
    "unwritable": errors.UnwritableImage("webp", "its side is above 16383"),
    "worker-lost": WorkerLost("000001-a", "its node, or the way there, is gone"),
    "store-unavailable": errors.StoreUnavailable("s3://bucket/key", "503 SlowDown"),
    "access-denied": errors.AccessDenied("s3://bucket/key", "403"),
    "not-found": errors.NotFound("s3://bucket/key"),
    "source-changed": errors.SourceChanged("s3://bucket/key", "a", "b"),
    "exists": errors.AlreadyExists("s3://bucket/key"),
    "damaged": errors.DamagedShard("s3://bucket/a.tar", "it ends in the middle"),
    "plan-conflict": errors.PlanConflict("s3://bucket", ("scale 2, not 4",)),
}


@pytest.mark.parametrize(("name", "error"), SENTENCES.items())
def test_errors_have_a_class(name: str, error: errors.PipelineError) -> None:
    """Protects counts and alarms: the sentence of each error is of its own class, also after tries."""
    assert reason_class(str(error)) == name
    assert reason_class(f"{error} (after 3 tries)") == name


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("no image beside these members; members of one sample must be adjacent in the tar", "no-image"),
        ("row 7 has no image", "no-image"),
        ("OutOfMemoryError: CUDA out of memory. (at engine.py:99)", "memory"),
        (str(ChecksumMismatch("s3://bucket/key", "SHA-256", "ab" * 32, "cd" * 32)), "damaged"),
        (str(errors.DamagedEntry("a.jpg", "latent", "it is cut off")), "damaged"),
        ("no one thought of this", OTHER),
    ],
)
def test_other_sentences_have_one_too(sentence: str, name: str) -> None:
    """Protects the same for what is no error of ours."""
    assert reason_class(sentence) == name


def test_the_classes_are_few() -> None:
    """Protects Prometheus: whatever sentences there are, they make a label of a bounded set, and are counted by it."""
    found = by_class([f"thing {number} broke" for number in range(1000)] + ["row 1 has no image"] * 2)
    assert found == {OTHER: 1000, "no-image": 2}
    assert len(REASONS) < 30
