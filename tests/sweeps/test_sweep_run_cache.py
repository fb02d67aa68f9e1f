"""DVC's run cache and trials that were stopped early, with the real pipeline."""

import json

import pytest

from fieldguide.results.paths import TRAIN_METRICS
from fieldguide.sweeps.experiments import read_trials

pytestmark = pytest.mark.slow
BASE, GOOD, BAD = 2.0e-3, 3.0e-3, 1.0e-6  # learning rates; the first is that of params.yaml


def train(project, rate):
    """Train outside of any sweep, return what DVC printed, and check the result."""
    project.git("checkout", "--quiet", ".")
    output = project.dvc("exp", "run", "--set-param", f"train.learning_rate={rate}", "train")
    assert "pruned" not in json.loads(project.read(TRAIN_METRICS))
    assert project.read("plots/curves.csv").count(b"\n") == 1 + 6  # all epochs
    project.git("checkout", "--quiet", ".")
    return output


def test_only_whole_trainings_are_restored(project):
    assert "Running stage 'train'" in train(project, GOOD)
    sweep = {
        "method": "grid",
        "metric": {"name": "val/acc"},
        "parameters": {"learning_rate": {"values": [BASE, GOOD, BAD]}},
        "early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 2, "s": 1},
    }
    file = project.folder / "sweeps/three.yaml"
    file.parent.mkdir()
    file.write_text(json.dumps(sweep))
    output = project.fieldguide("sweep", "run", "sweeps/three.yaml")
    assert "2 done, 1 pruned, 0 failed, 3 configurations" in output
    trials = read_trials(project.folder, "three")
    # Two were trained before. Their scores at the rung, from their curves, stop the third.
    assert [trial.pruned for trial in trials] == [False, False, True]
    logs = project.folder / ".fieldguide/sweeps/three/logs"
    for trial, found in zip(
        trials, ("didn't change, skipping", "is cached - skipping run"), strict=False
    ):
        assert f"Stage 'train' {found}" in (logs / f"{trial.name}.log").read_text()
        assert trial.seconds == 0
        assert trial.score("val/acc") > 0.5
    assert trials[2].seconds > 0
    # The third, run again outside of the sweep, is trained to its end, and that is restored.
    assert "Running stage 'train'" in train(project, BAD)
    assert "Stage 'train' is cached - skipping run" in train(project, BAD)
