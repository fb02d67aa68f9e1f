"""dvc.yaml says the truth about what each stage reads."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def module_file(name):
    for file in (
        SRC / f"{name.replace('.', '/')}.py",
        SRC / name.replace(".", "/") / "__init__.py",
    ):
        if file.is_file():
            return file
    return None


def imported_modules(file):
    """fieldguide modules that a file names anywhere, inside functions too, with their packages."""
    names = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []  # never run
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the module's name"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = {name for name in names if name.split(".")[0] == "fieldguide"}
    parents = {
        ".".join(name.split(".")[:k]) for name in ours for k in range(1, name.count(".") + 2)
    }
    return {found for name in parents if (found := module_file(name))}


def closure(script):
    seen, waiting = set(), {script}
    while waiting:
        file = waiting.pop()
        seen.add(file)
        waiting |= imported_modules(file) - seen
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_exactly_the_code_that_is_imported(stage):
    declared = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    used = {str(file.relative_to(ROOT)) for file in closure(ROOT / "stages" / f"{stage}.py")}
    assert declared == used


def test_stage_script_and_order():
    assert list(STAGES) == ["prepare", "train", "evaluate", "visualize"]
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"PYTHONPATH=src python stages/{name}.py"


def test_a_figure_change_reruns_only_visualize():
    users = [n for n, s in STAGES.items() if any("/figures/" in dep for dep in s["deps"])]
    assert users == ["visualize"]


def test_sections_of_params_are_read_by_one_stage_each():
    sections = {name: stage["params"] for name, stage in STAGES.items()}
    assert sections == {
        "prepare": ["data"],
        "train": ["model", "train"],
        "evaluate": ["evaluate"],
        "visualize": ["visualize"],
    }
    every = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert sorted(every) == sorted(name for names in sections.values() for name in names)


def test_timing_is_a_metric_but_no_stage_writes_it_as_an_out():
    whole = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    assert whole["metrics"] == ["metrics/timing.json"]
    assert "metrics/timing.json" not in str(STAGES)


def test_stage_scripts_are_short():
    for name in STAGES:
        assert len((ROOT / "stages" / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 50
