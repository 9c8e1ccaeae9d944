"""What the documents say is so: commands parse, links and files are there, the table of wings is the law, examples run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from jobs.cli import app
from jobs.commands.rescale import tier_for
from jobs.training.recipe import read_config
from pipeline.core.reasons import REASONS
from pipeline.core.records import Settings
from pipeline.core.target import TargetSize
from pipeline.restore import RestoreOptions
from tests.project.test_layers import LAW
from tests.support.commands import GUARD
from tests.support.pictures import photo, saved
from tests.support.workshop import Sample, as_folder, rescale

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
README_LINES = 130
PICTURE_BYTES = 600_000


def blocks(path: Path, language: str) -> Iterator[str]:
    """Yield the fenced code blocks of one language."""
    for match in re.finditer(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        yield match[1]


def command_lines(path: Path) -> Iterator[list[str]]:
    """Yield the words after `iarn` of every such command in a document's shell blocks, submitted ones included."""
    for block in blocks(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "iarn" in words[:1] or "--" in words:
                yield words[words.index("iarn") + 1 :]


PROGRAM = typer.main.get_command(app)
COMMANDS = [pytest.param(words, id=" ".join(words)) for path in DOCUMENTS for words in command_lines(path)]


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_are_the_programs_own(words: list[str]) -> None:
    """Protects the examples: each command exists, with every option, and values that the job would take."""
    command = PROGRAM.commands[words[0]]  # type: ignore[attr-defined]
    given = command.make_context(words[0], list(words[1:])).params
    if words[0] == "rescale":
        target = TargetSize.parse(**{name: given[name] for name in ("scale", "max_side", "max_pixels", "size")})
        Settings(target=target, tier=tier_for(given["tier"], given["floor"]), floor=given["floor"])
    if words[0] == "restore":
        RestoreOptions(format=given["image_format"], quality=given["quality"], scale=given["scale"], max_side=given["max_side"])


def test_every_command_is_shown() -> None:
    """Protects newcomers: the documents have an example of each command."""
    shown = {words.values[0][0] for words in COMMANDS}  # type: ignore[index]
    assert shown == set(PROGRAM.commands)  # type: ignore[attr-defined]


def test_the_readme_is_short() -> None:
    """Protects the first look: the README is read in one go, everything else is in docs/."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """Protects readers: every relative link is to a file of the repository, every anchor to a heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{path.name} links to {target}, which is not there"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(path: Path) -> None:
    """Protects those who look a thing up in the code: every path of a Python file, script or recipe named in prose is there."""
    for name in re.findall(r"`((?:\w+/)+\w+\.(?:py|toml))`", path.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), f"{path.name} names {name}, which is not there"


def test_every_page_is_in_the_index() -> None:
    """Protects readers of docs/: index.md leads to each page."""
    linked = set(re.findall(r"\]\(([\w-]+\.md)", (ROOT / "docs" / "index.md").read_text(encoding="utf-8")))
    assert linked == {path.name for path in ROOT.glob("docs/*.md")} - {"index.md"}


def test_pictures_are_small() -> None:
    """Protects clones: no picture of the documents weighs more than a page should."""
    for path in (ROOT / "docs" / "images").iterdir():
        assert path.stat().st_size < PICTURE_BYTES, f"{path.name} has {path.stat().st_size} bytes"


def test_make_targets_exist() -> None:
    """Protects the two commands of the first screen, and every other that a document or the gate names."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in (*DOCUMENTS, ROOT / ".ci" / "run"):
        named = re.findall(r"(?:^ {4}|`|^)make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= targets, f"{path.name} names {set(named) - targets}"
    assert {"demo", "test"} <= targets


def test_the_table_of_wings_is_the_law() -> None:
    """Protects docs/architecture.md: it draws the very table that the layering test holds, in the same order."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = text[text.index("## The wings") : text.index("## The network")]
    rows = re.findall(r"^\| `([\w/.]+)` \|.*\|([^|]*)\|$", drawn, re.MULTILINE)
    table = {wing: re.findall(r"`(\w+)`", known) for wing, known in rows}
    assert list(table.items()) == [(wing or "pipeline/__init__.py", known.split()) for wing, known in LAW.items()]


def test_every_class_of_reasons_is_explained() -> None:
    """Protects whoever reads an alarm or a report: docs/operating.md has each class, and none that there is not."""
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text[text.index("## Reasons") : text.index("## When something breaks")], re.MULTILINE)
    explained = [name for row in rows for name in re.findall(r"`([a-z-]+)`", row)]
    assert sorted(explained) == sorted(REASONS)


def cells(text: str, label: str) -> list[str]:
    """Return the cells after ``label`` in the first row of a table that begins with it."""
    found = re.search(rf"^\| {re.escape(label)} \|(.*)\|$", text, re.MULTILINE)
    assert found, f"no row {label!r}"
    return [cell.strip().strip("*") for cell in found[1].split("|")]


def test_the_readme_has_the_measured_figures() -> None:
    """Protects the honest table: quality in the README is what benchmarks/quality.py wrote into docs/quality.md."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme[readme.index("<!-- quality -->") : readme.index("<!-- /quality -->")]
    page = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    measured = page[page.index("### Set5") : page.index("### Set14")]
    labels = {
        "bicubic, published": "bicubic",
        "IRN": "IRN, one network for each scale",
        "AIDN": "AIDN, one network",
        "PSNR-Y": "`iarn`, one network",
        "PSNR-RGB": "its PSNR over RGB",
        "SSIM": "its SSIM",
        "LR PSNR": "its LR against the bicubic LR (RGB)",
        "MAC, restore": "thousand multiply-accumulates per source pixel, restoring",
    }
    columns = cells(measured, "scale")
    for number, scale in enumerate(cells(shown, "Set5")):
        row = cells(measured, scale.replace(" by x", "x"))
        for theirs, ours in labels.items():
            want, have = row[columns.index(theirs)], cells(shown, ours)[number]
            tolerance = 0.5 if theirs.startswith("MAC") else 1e-9
            assert bool(want) == bool(have), f"{scale}, {ours}: {have!r} instead of {want!r}"
            assert not want or abs(float(want) - float(have)) <= tolerance, f"{scale}, {ours}: {have} instead of {want}"


def test_the_changelog_has_this_version() -> None:
    """Protects releases: the version of the package has an entry."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_unit_of_the_service_is_one(tmp_path: Path) -> None:
    """Protects whoever copies it: its command is the program's own, and systemd knows every line of it.

    systemd complains of other units of the machine as well, which say nothing of this one.
    """
    (unit,) = blocks(ROOT / "docs" / "serving.md", "ini")
    match = re.search(r"^ExecStart=/opt/iarn/bin/iarn serve (.*)$", unit, re.MULTILINE)
    assert match is not None
    PROGRAM.commands["serve"].make_context("serve", shlex.split(match[1]))  # type: ignore[attr-defined]
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "iarn.service"
    text = unit.replace("/opt/iarn/bin/iarn", sys.executable)  # it has to be there
    for unknown in ("Nonsense=1", ""):
        path.write_text(f"{text}\n{unknown}\n")
        ran = subprocess.run([analyze, "verify", "--man=no", path], capture_output=True, text=True, timeout=GUARD, check=False)
        complaints = [line for line in ran.stderr.splitlines() if path.name in line]
        assert bool(complaints) == bool(unknown), complaints


@pytest.mark.parametrize("recipe", [block for path in DOCUMENTS for block in blocks(path, "toml")])
def test_recipes_can_be_read(recipe: str, tmp_path: Path) -> None:
    """Protects those who train: a recipe of the documents is one that `iarn train` takes."""
    path = tmp_path / "recipe.toml"
    path.write_text(recipe, encoding="utf-8")
    read_config(path)


@pytest.mark.parametrize("code", list(blocks(ROOT / "README.md", "python")))
def test_python_examples_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the README's Python: every example runs in a folder that has an archive `small`."""
    source = as_folder(tmp_path / "photos", [Sample(key="a.jpg", data=saved(photo(24, 32), "JPEG"))])
    rescale(source, tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that has an archive `small` of a few captioned pictures, as the working directory."""
    pictures = [
        Sample(key=f"cats/{n:03d}.jpg", data=saved(photo(64, 80, seed=n), "JPEG"), sidecars={"txt": b"a cat"}) for n in range(5)
    ]
    rescale(as_folder(tmp_path / "photos", pictures), tmp_path / "small")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_page_on_python_runs() -> None:
    """Protects docs/python.md: its examples run one after the other (DataLoader's workers are for test_dataset.py)."""
    for library in ("datasets", "duckdb", "pandas"):
        pytest.importorskip(library)
    names: dict[str, object] = {}
    for code in blocks(ROOT / "docs" / "python.md", "python"):
        if "import ray" not in code:
            exec(compile(code.replace("num_workers=2", "num_workers=0"), "python.md", "exec"), names)
    assert names["entry"].key == "cats/004.jpg"  # type: ignore[attr-defined]
    assert names["thumbnail"][8:12] == b"WEBP"  # type: ignore[index]
    assert len(names["frame"]) == 5  # type: ignore[arg-type]


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.usefixtures("small", "ray_cluster")
def test_the_page_on_python_runs_on_ray() -> None:
    """Protects the recipe for Ray Data: it decodes every LR into a batch."""
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    (code,) = [code for code in blocks(ROOT / "docs" / "python.md", "python") if "import ray" in code]
    names: dict[str, object] = {}
    exec(compile(code, "python.md", "exec"), names)
    assert tuple(names["batch"]["pixels"].shape)[1:] == (16, 16, 3)  # type: ignore[index]
