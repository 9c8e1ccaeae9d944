"""The layers: imports run one way, each vendor's library has one home, and nothing runs on import."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("iarn", "pipeline", "jobs")
MODULES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))

LAW = {
    # what users import, and the paths: from the top
    "": "reading",
    "serving": "reading archives pictures stores tables core",
    "reading": "restore entry_picture archives engines pictures stores tables core",
    "works": "verify restore rescale stores core",
    "verify": "entry_picture archives engines assets decoders pictures stores core",
    "restore": "entry_picture outputs archives engines assets decoders pictures stores core",
    "rescale": "tiers archives engines assets decoders pictures stores core",
    "entry_picture": "archives engines assets latents decoders pictures core",
    "tiers": "engines assets latents pictures core",
    # the wings they go through
    "outputs": "assets stores tables core",
    "archives": "assets pictures stores tables core",
    "engines": "pictures core",
    "cluster": "decoders core",
    "planning": "assets stores core",
    "assets": "decoders pictures stores tables core",
    "latents": "core",
    "decoders": "pictures containers core",
    "pictures": "containers core",
    "containers": "core",
    "stores": "core",
    "tables": "core",
    "core": "",
}
"""The law of the pipeline's wings and paths: what each may import, beside itself."""

HOMES = {
    "boto3": {"pipeline/stores/s3.py"},
    "botocore": {"pipeline/stores/s3.py", "pipeline/stores/s3_errors.py"},
    "types_boto3_s3": {"pipeline/stores/s3.py"},
    "urllib3": {"pipeline/stores/s3_errors.py"},  # the transport below botocore, whose errors can come through
    "PIL": {"pipeline/pictures/", "pipeline/decoders/"},
    "pillow_heif": {"pipeline/decoders/unusual.py"},
    "rawpy": {"pipeline/decoders/raw.py"},
    "imagecodecs": {"pipeline/pictures/codecs.py"},
    "constriction": {"pipeline/latents/coder.py"},
    "pyarrow": {"pipeline/tables/"},
    "ray": {"pipeline/cluster/"} | {"jobs/submit.py", "jobs/web/replicas.py"},
    "psutil": {"pipeline/cluster/room.py"},  # processes that a start of Ray left
    "grpc": {"pipeline/cluster/room.py"},  # what Ray speaks
    "aiohttp": {"jobs/submit.py"},  # the transport below Ray's client of its Jobs API
    "safetensors": {"iarn/weights.py"},
    "typer": {"jobs/cli.py", "jobs/commands/"},
    "jinja2": {"jobs/reports/archive_report.py"},
    "structlog": {"jobs/console.py"},
    "fastapi": {"jobs/web/http/", "jobs/web/iiif/routes.py"},
    "starlette": {"jobs/web/http/", "jobs/web/iiif/routes.py"},  # what fastapi is made of
    "anyio": {"jobs/web/http/", "jobs/web/iiif/routes.py"},  # the threads that fastapi runs on
    "pydantic": {"jobs/web/http/shapes.py"},
    "uvicorn": {"jobs/web/front/server.py"},
    "prometheus_client": {"jobs/web/service_metrics.py"},
    "rich": {"jobs/console.py", "jobs/inspect.py"},  # a table of entries is not a job's progress
}
"""The wings and files where alone a library may be imported: its errors and habits go no further."""

EVERYWHERE = {"numpy"}
TORCH = {
    "pipeline/engines/engine.py",
    "pipeline/engines/effort.py",
    "pipeline/engines/measure.py",
    "pipeline/engines/pieces.py",
    "pipeline/reading/dataset.py",
    "jobs/training/train.py",
    "jobs/training/checkpoints.py",
    "jobs/training/evaluate.py",
}
"""Files outside iarn that know torch: the engine, the dataset of an archive, training and measuring."""

NETWORK = {f"pipeline/engines/{name}.py" for name in ("engine", "effort", "measure", "pieces", "tiles")}
"""Files of the pipeline that know iarn: the engine and its parts, and the tiles that are cut along its lattice."""


def name_of(path: Path) -> str:
    """Return a module's path as this file writes it."""
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    """Return what a module says."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Return the dotted name of everything that a module imports, inside functions and for type checks as well."""
    found: list[str] = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively; write the whole name"
            assert node.module is not None
            found += (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    return tuple(found)


def unit_of(name: str) -> str | None:
    """Return the wing or the path of the pipeline that a dotted name belongs to, None for other layers' names."""
    layer, _, rest = name.removesuffix(".__init__").partition(".")
    return rest.partition(".")[0] if layer == "pipeline" else None


def packages(path: Path) -> set[str]:
    """Return the top-level packages that a module imports."""
    return {name.partition(".")[0] for name in imports(path)}


def test_the_layers_are_there() -> None:
    """Protects these tests: there are modules to look at in every layer, and each home exists."""
    assert {name_of(path).partition("/")[0] for path in MODULES} == set(LAYERS)
    for home in set.union(*HOMES.values(), TORCH, NETWORK):
        assert (ROOT / home).exists(), f"{home} is gone; say in HOMES where its library lives now"


def test_imports_run_one_way() -> None:
    """Protects the map: jobs know the pipeline, the pipeline knows iarn, and none knows who stands above it."""
    for path in MODULES:
        layer = LAYERS.index(name_of(path).partition("/")[0])
        above = packages(path) & {*LAYERS[layer + 1 :], "tests"}
        assert not above, f"{name_of(path)} imports {', '.join(sorted(above))}, which stands above it"


def test_wings_import_downwards() -> None:
    """Protects the map of the pipeline: a wing knows those below it that LAW names, and no other."""
    for path in MODULES:
        unit = unit_of(name_of(path).removesuffix(".py").replace("/", "."))
        if unit is None:
            continue
        assert unit in LAW, f"{name_of(path)} is in no wing; say in LAW where it stands"
        known = {unit_of(name) for name in imports(path) if name != "pipeline"} - {None, unit}
        allowed = LAW[unit].split()
        assert known <= set(allowed), f"{name_of(path)} imports {sorted(known)}; LAW lets it know {allowed}"


def test_the_law_goes_down() -> None:
    """Protects LAW itself: what it lists stands below, so there is no circle."""
    order = list(LAW)
    for unit, known in LAW.items():
        assert all(order.index(other) > order.index(unit) for other in known.split()), f"{unit} knows one above it"


def test_wings_and_files_are_of_a_readable_size() -> None:
    """Protects readers: a wing has 1,500 lines at most, and a file 400."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert not {name_of(path): count for path, count in lines.items() if count > 400}
    wings: dict[Path, int] = {}
    for path, count in lines.items():
        if path.parent.parent != ROOT:  # a layer itself is no wing
            wings[path.parent] = wings.get(path.parent, 0) + count
    assert not {str(wing): count for wing, count in wings.items() if count > 1500}


def test_every_library_has_one_home() -> None:
    """Protects the seams: a vendor's library is imported where it is owned, and one without a home nowhere."""
    for path in MODULES:
        own, layer = name_of(path), name_of(path).partition("/")[0]
        for package in packages(path) - set(sys.stdlib_module_names) - set(LAYERS) - EVERYWHERE:
            if package == "torch":
                assert layer == "iarn" or own in TORCH, f"{own} imports torch; that is for {', '.join(sorted(TORCH))}"
            else:
                homes = tuple(HOMES.get(package, ()))
                assert own.startswith(homes or "nowhere"), (
                    f"{own} imports {package}, whose home is {HOMES.get(package) or 'nowhere'}"
                )


def test_the_pipeline_knows_the_network_by_its_engine() -> None:
    """Protects the engine's seam: no other file of the pipeline reaches into iarn."""
    for path in MODULES:
        own = name_of(path)
        if own.startswith("pipeline/") and own not in NETWORK:
            assert "iarn" not in packages(path), f"{own} imports iarn; that is for {', '.join(sorted(NETWORK))}"


def test_no_import_cycles() -> None:
    """Protects reading order: no module at its top imports one that imports it back, through however many others."""
    graph: dict[str, set[str]] = {}
    names = {name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in MODULES}
    for name, path in names.items():
        graph[name] = {found for found in imports(path) if found in names and found not in {name, *LAYERS}}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join((*trail[trail.index(name) :], name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_module_without_a_subject() -> None:
    """Protects against a drawer for everything: no utils, helpers, misc or common."""
    for path in MODULES:
        words = set(path.stem.split("_"))
        assert not words & {"util", "utils", "utilities", "helper", "helpers", "misc", "common", "shared", "tools"}


def test_every_module_says_what_it_is() -> None:
    """Protects readers: a module opens with a sentence (a package's empty mark excepted)."""
    for path in MODULES:
        if path.name == "__init__.py" and not tree_of(path).body:
            continue
        docstring = ast.get_docstring(tree_of(path))
        assert docstring, f"{name_of(path)} has no docstring"
        assert docstring[0].isupper() or docstring[0] == "`"


def test_at_the_top_there_are_only_definitions() -> None:
    """Protects imports: a module's top binds names and defines things; nothing is called for its effect."""
    for path in MODULES:
        for node in tree_of(path).body:
            if isinstance(node, ast.Expr):
                assert isinstance(node.value, ast.Constant), f"{name_of(path)}:{node.lineno} does something on import"
            elif isinstance(node, ast.If):
                test = ast.unparse(node.test)
                assert test in ("TYPE_CHECKING", "__name__ == '__main__'"), f"{name_of(path)}:{node.lineno} decides on import"
            else:
                assert not isinstance(node, (ast.For, ast.While, ast.With, ast.Try)), (
                    f"{name_of(path)}:{node.lineno} runs on import"
                )


def loaded_by(*modules: str) -> set[str]:
    """Return the top-level packages that importing some modules loads, in a fresh interpreter."""
    code = f"import sys\nfor name in {modules!r}: __import__(name)\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    warnings = ("-W", "error", "-W", "ignore:Using extra keyword arguments")  # Ray Serve's, as in pyproject.toml
    done = subprocess.run([sys.executable, *warnings, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.slow
def test_training_needs_no_pipeline_libraries() -> None:
    """Protects training on machines that have torch, Pillow and safetensors alone: it loads nothing else."""
    found = loaded_by("jobs.training.train")
    unwanted = found & (HOMES.keys() - {"PIL", "safetensors"})
    assert not unwanted, f"training would load {', '.join(sorted(unwanted))}"


@pytest.mark.slow
def test_drivers_do_without_torch() -> None:
    """Protects whoever waits for a command: planning, driving and summing up a job load no PyTorch, which takes two seconds."""
    assert "torch" not in loaded_by("jobs.rescale", "jobs.restore", "jobs.verify", "jobs.inspect")


@pytest.mark.slow
def test_who_answers_http_does_without_torch() -> None:
    """Protects the memory of each process of a service, 180 MB of it: only a replica, which restores, loads PyTorch."""
    assert "torch" not in loaded_by("jobs.web.serve", "jobs.commands.serve")


@pytest.mark.slow
def test_the_network_needs_torch_alone() -> None:
    """Protects those who take iarn by itself: it loads torch, numpy and safetensors, and nothing of the layers above."""
    found = loaded_by("iarn.network", "iarn.training", "iarn.weights", "iarn.metrics")
    assert not found & ({*LAYERS, *HOMES} - {"iarn", "safetensors"})
