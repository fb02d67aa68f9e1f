"""Params that were trained before are restored from DVC's run cache, on the real dvc.yaml."""

import shutil

import pytest
from project import Project
from test_experiments import queue_states

pytestmark = pytest.mark.slow
STAGES = ("train", "evaluate", "visualize")
RATES = ("0.001", "0.002", "0.001")


def restored(output):
    return [s for s in STAGES if f"Stage '{s}' is cached - skipping run" in output]


def ran(output):
    return [s for s in STAGES if f"Running stage '{s}'" in output]


def run_experiment(project, rate, *options):
    settings = ("-S", f"train.learning_rate={rate}", "-S", "train.epochs=1")
    return project.dvc("exp", "run", *options, *settings)


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """Has run A, B, A, and has pushed its run cache to a folder; with the output of each run."""
    base = tmp_path_factory.mktemp("run_cache")
    shutil.copytree(finished.folder, base / "project", symlinks=True)
    project = Project(base / "project")
    project.dvc("remote", "add", "--quiet", "--default", "storage", str(base / "storage"))
    project.git("commit", "--quiet", "--all", "--message", "remote")
    project.dvc("push", "--quiet")
    project.outputs = [run_experiment(project, rate) for rate in RATES]
    project.model = project.read("models/classifier/model.safetensors")
    project.dvc("push", "--quiet", "--run-cache")
    project.git("checkout", "--quiet", ".")
    return project


def test_the_third_run_of_a_b_a_is_restored(trained, tmp_path):
    first, second, third = trained.outputs
    assert ran(first) == ran(second) == list(STAGES)
    assert restored(third) == list(STAGES)
    assert ran(third) == []

    # A colleague's clone. DVC pulls what the commit names; --pull brings what another run needs.
    bob = trained.clone(tmp_path / "bob")
    bob.dvc("pull", "--quiet", "--run-cache")
    output = run_experiment(bob, RATES[0], "--pull")
    assert restored(output) == list(STAGES)
    assert ran(output) == []
    assert bob.read("models/classifier/model.safetensors") == trained.model


def test_a_queue_and_a_temporary_workspace_restore_too(trained):
    output = run_experiment(trained, RATES[1], "--temp", "--name", "temporary")
    assert restored(output) == list(STAGES)
    run_experiment(trained, RATES[0], "--queue", "--name", "queued")
    trained.dvc("queue", "start")
    assert queue_states(trained) == {"queued": "Success"}
    output = trained.dvc("queue", "logs", "queued")
    assert restored(output) == list(STAGES)
    assert ran(output) == []


def test_a_restored_model_has_no_training_time(trained):
    """metrics/timing.json says whose seconds it has: those of the last training here."""
    trained.git("checkout", "--quiet", ".")
    trained.dvc("checkout", "--quiet")
    assert "trained in" in trained.fieldguide("report", "--markdown", "-")
    timing = trained.read("metrics/timing.json")
    run_experiment(trained, RATES[0])
    assert trained.read("metrics/timing.json") == timing
    assert "trained in" not in trained.fieldguide("report", "--markdown", "-")
