"""`dvc repro` as a user runs it: what it makes, what it reruns, what stops it."""

import json
import os
import signal
import sys
import time

import pytest
import yaml

pytestmark = pytest.mark.slow


def stages_that_changed(project):
    return sorted(json.loads(project.dvc("status", "--json")))


def kill_training_once_a_checkpoint_is_there(project, process):
    """SIGKILL to all of `dvc` and its stage at a moment nobody chose."""
    deadline = time.monotonic() + 300
    while not list(project.folder.glob(".fieldguide/resume/*/*/last.ckpt")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_first_repro_makes_every_output_and_says_where(finished):
    for name in (
        "data/prepared/dataset.json",
        "models/classifier/model.safetensors",
        "metrics/test.json",
        "metrics/predictions.csv",
        "metrics/trust.json",
        "metrics/environment.json",
        "metrics/model_summary.txt",
        "plots/curves.csv",
        "metrics/train/metrics.json",
        "plots/figures/guided_backprop.png",
        "plots/figures/filters_conv3.png",
    ):
        assert (finished.folder / name).is_file(), name
    assert "plots/figures/predictions.png" in finished.output
    timing = json.loads(finished.read("metrics/timing.json"))
    assert set(timing) == {"train"}
    assert timing["train"]["images_per_second"] > 0
    lock = yaml.safe_load(finished.read("dvc.lock"))
    hashes = {out["path"]: out["md5"] for out in lock["stages"]["train"]["outs"]}
    assert timing["train"]["model"] == hashes["models/classifier"]
    in_git = finished.git("ls-files", "metrics", "plots").split()
    assert in_git == [
        *("metrics/.gitignore", "metrics/copies/.gitignore"),
        *("metrics/prepare.json", "metrics/test.json"),
        *("metrics/timing.json", "metrics/train/metrics.json", "plots/.gitignore"),
        *("plots/classes.csv", "plots/confusion.csv", "plots/curves.csv", "plots/left_out.csv"),
        *("plots/per_class.csv", "plots/reliability.csv", "plots/risk_coverage.csv"),
    ]


def test_metrics_are_the_dozen_that_people_compare(finished):
    printed = finished.dvc("exp", "show", "--csv")
    names = [name for name in printed.splitlines()[0].split(",") if "." in name]
    assert not [name for name in names if ":" in name], "two columns share a name"
    sections = yaml.safe_load(finished.read("params.yaml"))
    metrics = [n for n in names if "/" not in n and n.split(".")[0] not in sections]
    assert sorted(metrics) == [
        *("best.val_acc", "best.val_bal_acc", "best.val_loss", "best.val_macro_f1"),
        *("parameters.all", "parameters.trained"),
        *("photos.left_out", "photos.test", "photos.train", "photos.val"),
        *("test.acc", "test.bal_acc", "test.coverage", "test.ece", "test.macro_f1"),
        "test.top3_acc",
    ]


def test_status_is_clean_right_after(project):
    assert stages_that_changed(project) == []
    assert project.git("status", "--porcelain") == ""


def test_forced_repro_leaves_the_lock_byte_identical(project):
    before = project.read("dvc.lock")
    project.dvc("repro", "--force")
    assert project.read("dvc.lock") == before
    assert stages_that_changed(project) == []


def test_a_rerun_needs_a_reason(project):
    (project.folder / "docs").mkdir()
    (project.folder / "docs" / "note.md").write_text("# a comment\n", encoding="utf-8")
    (project.folder / "src/fieldguide/__pycache__").mkdir(exist_ok=True)
    (project.folder / "src/fieldguide/__pycache__/x.pyc").write_bytes(b"x")
    assert stages_that_changed(project) == []
    for room in ("report", "gate", "sweeps", "inference", "commands"):
        module = project.folder / "src" / "fieldguide" / room / "__init__.py"
        module.write_text('"""A tool."""\n', encoding="utf-8")
    assert stages_that_changed(project) == []
    (project.folder / "src/fieldguide/figures/new.py").write_text('"""New."""\n', encoding="utf-8")
    assert stages_that_changed(project) == ["visualize"]
    project.edit("params.yaml", "learning_rate: 0.002", "learning_rate: 0.003")
    assert stages_that_changed(project) == ["train", "visualize"]


@pytest.mark.soak
def test_killed_training_goes_on_and_ends_the_same(project):
    before = project.read("dvc.lock")
    process = project.start(sys.executable, "-m", "dvc", "repro", "--force", "train")
    kill_training_once_a_checkpoint_is_there(project, process)
    # --force: without it DVC restores the training that the run cache has.
    output = project.dvc("repro", "--force", "train")
    assert "Going on after epoch" in output
    project.dvc("repro")
    assert project.read("dvc.lock") == before
    assert not list(project.folder.glob(".fieldguide/resume/*/*/last.ckpt"))


def test_a_mistake_is_named_without_traceback(project):
    project.edit("params.yaml", "conv_layers: 3", "conv_layers: 8")
    output = project.dvc("repro", status=255)
    assert "model.conv_layers: 8 blocks halve data.image_size 32 to nothing; allowed: 1 to 5" in (
        output
    )
    assert "Traceback" not in output
    project.edit("params.yaml", "conv_layers: 8", "conv_layers: 3")
    project.edit("params.yaml", "archive: data/photos.zip", "archive: data/none.zip")
    output = project.dvc("repro", status=255)
    assert "data/none.zip" in output
    assert "Traceback" not in output


def test_plots_are_rendered(project):
    shown = json.loads(project.dvc("plots", "show", "--json"))
    titles = [text for text in json.dumps(shown).split('"') if text.startswith("plots/figures/")]
    assert "plots/figures/predictions.png" in {text.replace("\\\\", "/") for text in titles}
    for plot in (
        "accuracy",
        "loss",
        "plots/curves.csv",
        "plots/confusion.csv",
        "plots/classes.csv",
    ):
        vega = json.loads(project.dvc("plots", "show", plot, "--show-vega"))
        assert vega["data"]["values"], plot
