"""A cache bounded by its bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.byte_cache import LARGEST_SHARE, ByteCache


@given(limit=st.integers(0, 100), puts=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 60)), max_size=40))
def test_a_cache_is_bounded_by_its_bytes(limit: int, puts: list[tuple[str, int]]) -> None:
    """Protects memory: whatever is put, the bytes kept are those it says, never above the limit, and a value is the latest."""
    cache: ByteCache[int] = ByteCache(limit)
    latest: dict[str, int] = {}
    for number, (name, size) in enumerate(puts):
        cache.put(name, number, size)
        latest.pop(name, None)
        if size * LARGEST_SHARE <= limit:
            latest[name] = number
        assert cache.get(name) == latest.get(name)
        assert cache.state.bytes <= limit
    for name in "abcdef":
        assert cache.get(name) in (None, latest.get(name))


def test_a_cache_lets_go_of_what_was_not_asked_for_longest() -> None:
    """Protects the cache's use: what is asked for stays, and a new value of a name replaces the old one's bytes."""
    cache: ByteCache[str] = ByteCache(100)
    for name in "abcd":
        cache.put(name, name, 25)
    assert cache.get("a") == "a"
    cache.put("e", "e", 25)
    assert cache.get("b") is None
    cache.put("a", "again", 5)
    assert (cache.get("a"), cache.state.bytes, cache.state.values) == ("again", 80, 4)
