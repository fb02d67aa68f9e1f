"""dvc.yaml says the truth about what each stage reads and writes."""

from pathlib import Path

import pytest
import yaml
from imports import closure

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
WHOLE = yaml.safe_load(TEXT)
STAGES = WHOLE["stages"]


def code_deps(stage):
    return {dep for dep in STAGES[stage]["deps"] if dep.startswith(("src/", "stages/"))}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_exactly_the_rooms_that_are_imported(stage):
    used = set()
    for file in closure(ROOT / "stages" / f"{stage}.py"):
        name = file.relative_to(ROOT)
        in_a_room = name.parts[:2] == ("src", "fieldguide") and len(name.parts) > 3
        used.add(str(name.parent if in_a_room else name))
    assert code_deps(stage) == used


def test_the_map_stays_short():
    assert len(TEXT.splitlines()) <= 90
    assert len({dep for stage in STAGES for dep in code_deps(stage)}) <= 25


def test_stage_script_and_order():
    assert list(STAGES) == ["prepare", "train", "evaluate", "visualize"]
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"PYTHONPATH=src python stages/{name}.py"


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_saves_its_runs(stage):
    """DVC 3.67 saves no run of a stage with a plain output of `cache: false`, or one it keeps."""
    for out in STAGES[stage].get("outs", ()):
        assert isinstance(out, str), out
    assert "persist" not in str(STAGES[stage])
    assert "always_changed" not in STAGES[stage]


def test_each_section_of_params_is_read_by_its_stages():
    sections = {name: stage["params"] for name, stage in STAGES.items()}
    assert sections == {
        "prepare": ["data"],
        "train": ["compute", "model", "train"],
        "evaluate": ["compute", "evaluate"],
        "visualize": ["compute", "visualize"],
    }
    every = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert set(every) == {name for names in sections.values() for name in names}


def test_stage_scripts_are_short():
    for name in STAGES:
        assert len((ROOT / "stages" / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 50
