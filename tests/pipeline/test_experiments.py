"""`dvc exp` on this pipeline, in the workspace, in the queue and in temporary workspaces."""

import json
import sys
import time

import pytest
from test_repro import kill_training_once_a_checkpoint_is_there

pytestmark = pytest.mark.slow


def experiments(project):
    """Finished experiments by name: their params, metrics and outs."""
    shown = json.loads(project.dvc("exp", "show", "--json"))
    baseline = next(entry for entry in shown if entry["rev"] != "workspace")
    finished = project.dvc("exp", "list", "--name-only").split()
    return {
        experiment["name"]: experiment["revs"][0]["data"]
        for experiment in baseline["experiments"] or []
        if experiment["name"] in finished
    }


def queue_states(project):
    """State of each queued experiment by name, once all have ended."""
    deadline = time.monotonic() + 600
    while True:
        lines = project.dvc("queue", "status").splitlines()
        rows = [line.split() for line in lines if line and not line.startswith(("Task", "Worker"))]
        states = {row[1]: row[-1] for row in rows if len(row) > 2}
        if states and set(states.values()) <= {"Success", "Failed"}:
            return states
        assert time.monotonic() < deadline, lines
        time.sleep(1)


@pytest.mark.soak
def test_queue_runs_each_setting_from_its_own_tree(project):
    # Code that is in the experiments' trees alone: an editable install elsewhere lacks it.
    project.edit("src/fieldguide/training/loop.py", 'print(f"Kept epoch', 'print(f"HERE epoch')
    project.git("commit", "--quiet", "--all", "--message", "code of this tree")
    project.dvc("exp", "run", "--queue", "-S", "model.activation=relu,gelu", "train")
    project.dvc("queue", "start", "-j", "2")
    states = queue_states(project)
    assert set(states.values()) == {"Success"}, states
    found = experiments(project)
    assert sorted(found) == sorted(states)
    used = {e["params"]["params.yaml"]["data"]["model"]["activation"] for e in found.values()}
    assert used == {"relu", "gelu"}
    for data in found.values():
        metrics = data["metrics"]["metrics/train/metrics.json"]["data"]
        assert 0 < metrics["best"]["val_acc"] <= 1
    for name in states:
        assert "HERE epoch" in project.dvc("queue", "logs", name)


@pytest.mark.soak
def test_killed_experiment_goes_on_in_another_workspace(project):
    command = ["exp", "run", "--temp", "--set-param", "train.seed=0", "--force", "train"]
    process = project.start(sys.executable, "-m", "dvc", *command)
    kill_training_once_a_checkpoint_is_there(project, process)
    output = project.dvc(*command)
    assert "Going on after epoch" in output
    (data,) = experiments(project).values()
    model = data["outs"]["models/classifier"]["hash"]
    assert model in project.read("dvc.lock").decode()
