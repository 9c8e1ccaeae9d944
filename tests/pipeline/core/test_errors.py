"""The error tree: every class carries its fields, says one sentence, and survives the way between processes."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import typing
from typing import Any

import pytest

from pipeline.archives import errors as of_archives
from pipeline.cluster import errors as of_clusters
from pipeline.core import errors
from pipeline.core.errors import PipelineError
from pipeline.reading import errors as of_reading

HOMES = (errors, of_archives, of_clusters, of_reading)
"""The root's module, and those of the wings that have errors of their own."""


def classes() -> list[type[PipelineError]]:
    """Return every class of the tree, each from the module that defines it."""
    defined = [(home, value) for home in HOMES for value in vars(home).values()]
    return [value for home, value in defined if isinstance(value, type) and value.__module__ == home.__name__]


def subclasses(kind: type[PipelineError]) -> set[type[PipelineError]]:
    """Return all that descend from a class, wherever they are defined."""
    return {kind}.union(*(subclasses(below) for below in kind.__subclasses__()))


def fields(kind: type[PipelineError]) -> dict[str, Any]:
    """Return the parameters of a class and their types, in order; none for one that only groups others."""
    if "__init__" not in vars(kind):
        return {}
    hints = typing.get_type_hints(kind.__init__)
    return {name: hints[name] for name in list(inspect.signature(kind.__init__).parameters)[1:]}


def value_of(name: str, hint: Any, number: int) -> Any:
    """Return a value of a parameter's type that no other parameter has."""
    if hint is str:
        return f"{name}-{number}"
    if hint is int:
        return 1000 + number
    if hint == tuple[str, ...]:
        return (f"first {name}", f"second {name}")
    if hint == str | None:
        return f"{name}-{number}"
    raise AssertionError(f"no value known for {name}: {hint}; add one")


def example_of(kind: type[PipelineError]) -> PipelineError:
    """Return an error with a different value in each field."""
    return kind(*(value_of(name, hint, number) for number, (name, hint) in enumerate(fields(kind).items())))


LEAVES = [kind for kind in classes() if fields(kind)]


def test_the_tree_is_found() -> None:
    """Protects these tests: the classes are discovered, all descend from one root, and none is defined elsewhere."""
    assert len(LEAVES) >= 25
    assert set(classes()) == {kind for kind in subclasses(PipelineError) if kind.__module__.startswith("pipeline.")}


def test_a_class_groups_others_or_has_fields() -> None:
    """Protects messages: an error that is raised has fields to tell; only one that groups others has none."""
    for kind in classes():
        assert bool(fields(kind)) != bool(kind.__subclasses__()), f"{kind.__name__} groups others and is raised, or neither"


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_argument_is_an_attribute(kind: type[PipelineError]) -> None:
    """Protects callers that act on an error: each argument is there under its name, and all went to Exception."""
    error = example_of(kind)
    expected = tuple(value_of(name, hint, number) for number, (name, hint) in enumerate(fields(kind).items()))
    assert tuple(getattr(error, name) for name in fields(kind)) == expected
    assert error.args == expected


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_the_message_is_one_line_that_tells_every_field(kind: type[PipelineError]) -> None:
    """Protects users: one line of prose, in which no field is left out."""
    error = example_of(kind)
    text = str(error)
    assert text == text.strip()
    assert "\n" not in text
    assert text != str(error.args)
    assert len(text.split()) >= 3
    for name in fields(kind):
        value = getattr(error, name)
        for part in value if isinstance(value, tuple) else (value,):
            assert str(part) in text, f"{name} is not told in: {text}"


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_it_pickles_with_all_its_fields(kind: type[PipelineError]) -> None:
    """Protects errors on their way from an actor to the driver: class, fields and sentence arrive."""
    error = example_of(kind)
    error.__cause__ = None
    for found in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(found) is kind
        assert vars(found) == vars(error)
        assert found.args == error.args
        assert str(found) == str(error)


def test_a_missing_column_is_told_with_and_without_a_name() -> None:
    """Protects the one message that has two forms: a column that was named, and none that was found."""
    assert "'img'" in str(errors.NoImageColumn("a.parquet", "img", ("x",)))
    assert "None" not in str(errors.NoImageColumn("a.parquet", None, ()))


def test_the_drawn_tree_is_the_tree() -> None:
    """Protects the drawing at the top of the root's module: every class of every wing is in it, under its parent."""
    drawn: dict[str, str] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[│ ]   )*)(?:[├└]── )?([A-Z]\w+)\b", line)
        if match is None:
            continue
        depth = len(match[1]) // 4 + ("── " in line)
        parents[depth:] = [match[2]]
        drawn[match[2]] = parents[depth - 1] if depth else "Exception"
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in classes()}
