"""The rules of the house (DESIGN, "The house"), each held by a test."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

from tasks.domain.errors import WrongUse
from tasks.domain.params import Section, load
from tasks.store.digests import packages_of

ROOT = Path(__file__).resolve().parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
ROOMS = sorted(p.name for p in (ROOT / "tasks").iterdir() if (p / "__init__.py").exists())
LOWER = {"domain": 0, "nets": 1, "training": 2, "store": 2, "keys": 2, "ledger": 2}
"""Layers below the rooms; a package may import those of its own level or below, a room no room."""
LIGHT = {"torch", "torchvision", "numpy", "pandas", "pyarrow", "pydantic", "yaml", "safetensors"}
LIGHT_ROOMS = ("nets", "training", "compare", "classify", "segment", "forecast", "score")
FLOW_SECTIONS = {"promote": "flows.promote", "retrain": "flows.watch"}
"""Sections that a flow reads, not a room."""


def imports(path: Path) -> set[str]:
    """Absolute names of all modules that `path` imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def sources(package: str) -> list[Path]:
    return sorted((ROOT / "tasks" / package).rglob("*.py"))


@pytest.mark.parametrize("stage", STAGES)
def test_one_word_names_the_stage_its_room_its_params_and_its_tests(stage: str) -> None:
    assert STAGES[stage]["cmd"].split()[:3] == ["python", "-m", f"tasks.{stage}"]
    assert stage in ROOMS and stage in PARAMS and stage in STAGES[stage]["params"]
    assert any((ROOT / "tests" / stage).glob("test_*.py")), f"tests/{stage}/ holds no test"
    assert STAGES[stage]["desc"] and STAGES[stage]["meta"]["queue"] in ("cpu", "gpu")


@pytest.mark.parametrize("stage", STAGES)
def test_a_room_has_a_story_its_params_and_a_short_door(stage: str) -> None:
    room = importlib.import_module(f"tasks.{stage}")
    assert len(room.__doc__ or "") > 80, "the docstring says what the room reads and writes, and in which units"
    assert len((ROOT / "tasks" / stage / "__main__.py").read_text().splitlines()) <= 30
    model = importlib.import_module(f"tasks.{stage}.params").Params
    assert issubclass(model, Section) and model.model_config["frozen"]


@pytest.mark.parametrize("section", PARAMS)
def test_no_default_is_hidden_in_code_and_every_parameter_is_read(section: str) -> None:
    module = FLOW_SECTIONS.get(section, f"tasks.{section}.params")
    model = importlib.import_module(module).Params
    defaults = [name for name, field in model.model_fields.items() if not field.is_required()]
    assert not defaults, f"{section}: {defaults} have defaults in code"
    files = [path for path in sources(section) if path.name != "params.py"] if section in ROOMS else []
    text = "\n".join(path.read_text() for path in [*files, *(ROOT / "flows").glob("*.py")])
    unread = [name for name in model.model_fields if not re.search(rf'\.{name}\b|"{name}"', text)]
    assert not unread, f"{section}: {unread} are never read"
    load(section, model, PARAMS)


@pytest.mark.parametrize("section", PARAMS)
def test_an_unknown_key_is_an_error(section: str) -> None:
    model = importlib.import_module(FLOW_SECTIONS.get(section, f"tasks.{section}.params")).Params
    with pytest.raises(WrongUse, match="no_such_key"):
        load(section, model, {section: {**PARAMS[section], "no_such_key": 1}})


@pytest.mark.parametrize("package", ROOMS)
def test_imports_go_one_way(package: str) -> None:
    for path in sources(package):
        for name in imports(path):
            parts = name.split(".")
            assert parts[0] != "flows", f"{path}: a room imports flows"
            assert parts[0] not in {"prefect", "dvc", "mlflow"}, f"{path}: {parts[0]} below flows"
            if parts[0] != "tasks" or len(parts) == 1 or parts[1] not in ROOMS or parts[1] == package:
                continue
            level = LOWER.get(package, 3)
            assert parts[1] in LOWER, f"{path}: a room imports the room {parts[1]}"
            assert LOWER[parts[1]] <= level, f"{path}: {package} imports {parts[1]}, which is above it"


@pytest.mark.parametrize("package", LIGHT_ROOMS)
def test_a_gpu_worker_needs_little(package: str) -> None:
    """Rule 4. `store` hands out more than these rooms use, so of it only what they import counts."""
    import sys

    waiting, seen = list(sources(package)), set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "tasks":
                candidates = [ROOT.joinpath(*parts).with_suffix(".py"), ROOT.joinpath(*parts) / "__init__.py"]
                waiting += [candidate for candidate in candidates if candidate.exists()]
            elif path.parts[-2] != "store" or parts[0] != "tasks":
                allowed = parts[0] in LIGHT or parts[0] in sys.stdlib_module_names or parts[0] == ""
                assert allowed or (parts[0] == "pydantic_settings" and path.name == "settings.py"), (
                    f"{path}: {parts[0]}"
                )


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_that_a_stage_depends_on_is_in_dvc_yaml(stage: str) -> None:
    named = {dep.removeprefix("tasks/") for dep in STAGES[stage]["deps"] if dep.startswith("tasks/")}
    assert named == set(packages_of(stage))


def test_graph_names_no_stage() -> None:
    tree = ast.parse((ROOT / "flows/graph.py").read_text())
    written = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not written & set(STAGES)


def test_nothing_is_pickled() -> None:
    forbidden = re.compile(r"torch\.(save|load)\(|import pickle|pickle\.load|allow_pickle=True|joblib")
    for path in [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]:
        assert not forbidden.search(path.read_text()), path


def test_no_file_has_outgrown_its_room() -> None:
    long = {
        p: len(p.read_text().splitlines()) for p in [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]
    }
    assert not {str(path): lines for path, lines in long.items() if lines > 480}


def test_forbidden_names_are_not_used() -> None:
    named = {p.stem for p in [*(ROOT / "tasks").rglob("*"), *(ROOT / "flows").rglob("*")]}
    assert not named & {"utils", "core", "manager", "helper", "helpers", "common", "misc"}


def test_the_commands_of_the_readme_exist() -> None:
    from typer.main import get_command

    from flows.cli import app

    readme = (ROOT / "README.md").read_text()
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    used = set(
        re.findall(r"osteoflow(?: -C \S+)? ([a-z][a-z-]*)\b", " ".join(re.findall(r"`[^`]+`|```.*?```", readme, re.S)))
    )
    assert used and used <= known, used - known
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z]+)", readme)) <= targets
