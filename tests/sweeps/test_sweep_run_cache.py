"""Rungs and DVC's run cache, with the real pipeline."""

import json
import re

import pytest

from fieldguide.core.params import load_params
from fieldguide.sweeps.record import Record
from fieldguide.sweeps.sweep_file import load_sweep

pytestmark = pytest.mark.slow
RATES = [2.0e-3, 3.0e-3, 1.0e-6]  # the first is that of params.yaml


def outputs(project):
    files = ("dvc.lock", "metrics/train/metrics.json", "plots/curves.csv")
    return [project.read(file) for file in files]


def test_a_sweep_leaves_its_rungs_in_the_run_cache(project):
    sweep = {
        "method": "grid",
        "metric": {"name": "val/acc"},
        "parameters": {"learning_rate": {"values": RATES}},
        "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2, "s": 1},
    }
    file = project.folder / "sweeps/three.yaml"
    file.parent.mkdir()
    file.write_text(json.dumps(sweep))
    output = project.fieldguide("sweep", "run", "sweeps/three.yaml")
    assert "0 failed" in output
    base = load_params(project.folder / "params.yaml")
    record = Record(load_sweep(file, base), base, writes=False)
    runs = {one.run.key: one for one in record.ended}
    assert {key for key in runs if key[2]} == {(0, 0, 2), (1, 0, 2), (2, 0, 2)}
    whole = [key for key in runs if key[2] == 0]
    assert whole
    assert (2, 0, 0) not in whole
    for number, _, _ in whole:
        # In the workspace, without the checkpoints of the sweep: restored at every rung.
        rate = f"train.learning_rate={RATES[number]}"
        for stop in (2, 0):
            project.git("checkout", "--quiet", ".")
            text = project.dvc(
                *("exp", "run", "--set-param", rate),
                *("--set-param", f"train.stop_after={stop}", "train"),
            )
            assert "Running stage 'train'" not in text
            best = json.loads(project.read("metrics/train/metrics.json"))["best"]["val_acc"]
            assert best == runs[number, 0, stop].score
            assert project.read("plots/curves.csv").count(b"\n") == 1 + (stop or 6)
    project.git("checkout", "--quiet", ".")


def test_rungs_in_the_workspace_end_as_a_training_without_a_stop(project):
    rate = ("--set-param", "train.learning_rate=0.004")

    def train(stop):
        text = project.dvc("exp", "run", *rate, "--set-param", f"train.stop_after={stop}", "train")
        assert "Running stage 'train'" in text
        return text

    assert "Paused by train.stop_after: 3" in train(3)
    assert "Going on after epoch 3 of 6." in train(0)
    in_rungs = outputs(project)
    project.git("checkout", "--quiet", ".")
    project.dvc("repro", "--force", "--single-item", "train")  # the base, in between
    project.git("checkout", "--quiet", ".")
    params = project.folder / "params.yaml"
    params.write_text(re.sub(r"learning_rate: \S+", "learning_rate: 0.004", params.read_text()))
    text = project.dvc("repro", "--force", "--single-item", "train")
    assert "Going on" not in text
    assert outputs(project) == in_rungs
    project.git("checkout", "--quiet", ".")
