"""Plans: canonical JSON there and back, and what is none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.archives.archive import FORMAT_VERSION, Archive, decode_plan, encode_plan, plan_digest
from pipeline.core.errors import DamagedObject
from pipeline.core.records import FloorMetric, LrCodec, Plan, PlanPart, Settings, Tier, Verification
from pipeline.core.target import TargetSize
from pipeline.stores.store import LocalStore
from tests.support.archives import PLAN, digest

# The plan -------------------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=12)
TARGETS = st.one_of(
    st.tuples(st.floats(1, 4), st.floats(1, 4)).map(lambda scale: TargetSize(scale=scale)),
    st.integers(1, 10**6).map(lambda count: TargetSize(max_side=count)),
    st.integers(1, 10**9).map(lambda count: TargetSize(max_pixels=count)),
    st.tuples(st.integers(1, 9999), st.integers(1, 9999)).map(lambda size: TargetSize(size=size)),
)
LEVELS = st.one_of(
    st.fixed_dictionaries({"tier": st.sampled_from([tier for tier in Tier if tier is not Tier.FLOOR])}),
    st.fixed_dictionaries(
        {"tier": st.just(Tier.FLOOR), "floor": st.floats(0.01, 0.99), "floor_metric": st.sampled_from(FloorMetric)}
    ),
)
SETTINGS = st.builds(
    lambda level, **rest: Settings(**level, **rest),
    level=LEVELS,
    target=TARGETS,
    max_ratio=st.none() | st.floats(0.01, 100),
    lr_codec=st.sampled_from(LrCodec),
    pixel_limit=st.integers(1, 10**10),
    image_column=st.none() | TEXT,
    all_files=st.booleans(),
    keep_if_lossy=st.booleans(),
)
SETTINGS |= st.builds(Settings, target=TARGETS, tier=st.just(Tier.LEAN), verify=st.sampled_from(Verification))
PARTS_OF_PLANS = st.builds(
    PlanPart, sha256=st.binary().map(digest), shards=st.integers(1, 2**40), objects=st.integers(1, 2**40)
)
PLANS = st.builds(Plan, source=TEXT, settings=SETTINGS, model=TEXT, parts=st.lists(PARTS_OF_PLANS, max_size=3).map(tuple))


@given(plan=PLANS)
def test_any_plan_comes_back_with_the_same_bytes(plan: Plan) -> None:
    """Protects the digest that names an archive: decode and encode give the very same plan.json."""
    data = encode_plan(plan)
    assert decode_plan(data, "plan") == plan
    assert encode_plan(decode_plan(data, "plan")) == data


def test_the_plan_is_canonical_json() -> None:
    """Protects the digest against a change of the JSON's form, and names that are no Unicode."""
    odd = replace(PLAN, source="/\udce4/ü")
    assert decode_plan(encode_plan(odd), "plan") == odd
    value = json.loads(encode_plan(PLAN))
    assert value["format_version"] == FORMAT_VERSION == 4
    assert list(value) == sorted(value)
    assert plan_digest(encode_plan(PLAN)) == "af34f30d95c97ee1527e23b0fa52543c56690ffaba98e4d2fa3bd77f3b1ecc04"


@pytest.mark.parametrize(
    "data",
    [b"", b"no", b"[]", b'{"format_version":3}', b'{"format_version":3,"source":1,"settings":{},"model":"","parts":[]}'],
)
def test_junk_is_no_plan(store: LocalStore, data: bytes) -> None:
    """Protects against a traceback where plan.json is something else."""
    store.create("plan.json", data)
    with pytest.raises(DamagedObject, match=r"plan\.json is damaged"):
        Archive.open(store)


def test_changed_fields_make_no_plan() -> None:
    """Protects against a plan with a field too many, too few, or of another kind: settings would silently be defaults."""
    value = json.loads(encode_plan(PLAN))
    for change in (
        {"settings": {**value["settings"], "tire": "lean"}},
        {"settings": {name: part for name, part in value["settings"].items() if name != "max_ratio"}},
        {"settings": {**value["settings"], "floor": 40.0}},
        {"settings": {**value["settings"], "tier": "rich"}},
        {"settings": {**value["settings"], "keep_if_lossy": "yes"}},
        {"settings": {**value["settings"], "target": {"scale": None}}},
        {"parts": [{**value["parts"][0], "shards": 0}]},
        {"parts": [{**value["parts"][0], "sha256": "../../evil"}]},
        {"parts": None},
        {"model": None},
    ):
        with pytest.raises(DamagedObject):
            decode_plan(json.dumps({**value, **change}).encode(), "plan")
