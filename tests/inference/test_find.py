"""Which classifier a name finds, in a real Git and DVC repository with a registry."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from project import Project

from fieldguide.core.errors import BundleError
from fieldguide.inference.find import find_model
from fieldguide.network.bundle import load_bundle, save_bundle

# A stage that writes the classifier; nothing runs it.
PIPELINE = "stages: {train: {cmd: 'false', outs: [models/classifier]}}\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory, classifier_folder):
    """Version 1 (val_acc 0.1), tagged; version 2 (0.2); an experiment (0.3); workspace (0.4)."""
    project = Project(tmp_path_factory.mktemp("project"))
    bundle = load_bundle(classifier_folder)

    def train(val_acc):
        save_bundle(replace(bundle, val_acc=val_acc), project.folder / "models" / "classifier")
        project.dvc("commit", "--force")

    def release(version, stage):
        project.git("add", "--all")
        project.git("commit", "-m", version)
        project.run("gto", "register", "classifier", "--version", version)
        project.run("gto", "assign", "classifier", "--version", version, "--stage", stage)

    project.git("init", "-b", "main")
    project.name_user()
    project.dvc("init")
    (project.folder / "dvc.yaml").write_text(PIPELINE)
    (project.folder / ".gitignore").write_text(".fieldguide/\n/models/classifier\n")
    train(0.1)
    release("v1.0.0", "prod")
    project.git("tag", "first")
    train(0.2)
    release("v2.0.0", "dev")
    project.git("branch", "prod")  # a stage goes before a branch of its name
    train(0.3)
    project.dvc("exp", "save", "--name", "bold-try")
    train(0.4)
    return project.folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "val_acc"),
    [
        ("prod", 0.1),
        ("dev", 0.2),
        ("v1.0.0", 0.1),
        ("v2.0.0", 0.2),
        ("first", 0.1),
        ("HEAD~1", 0.1),
        ("main", 0.2),
        ("bold-try", 0.3),
    ],
)
def test_stage_version_revision_and_experiment(model, val_acc, root):
    folder = find_model(model, root)
    assert load_bundle(folder).val_acc == val_acc
    # The second time it is there already. The workspace is as it was.
    before = (folder / "model.json").stat().st_mtime_ns
    assert find_model(model, root) == folder
    assert (folder / "model.json").stat().st_mtime_ns == before
    assert load_bundle(root / "models" / "classifier").val_acc == 0.4


@pytest.mark.slow
def test_a_path_is_taken_as_it_is(root, classifier_folder):
    assert find_model(str(classifier_folder), root) == classifier_folder
    assert find_model("models/classifier", root) == Path("models/classifier")
    assert find_model("nowhere.onnx", root) == Path("nowhere.onnx")
    assert find_model("workspace", root) == root / "models/classifier"


@pytest.mark.slow
def test_an_unknown_name(root):
    with pytest.raises(
        BundleError, match="--model staging: no such folder; staging: no such stage, version"
    ):
        find_model("staging", root)


@pytest.mark.slow
def test_a_classifier_that_cannot_be_fetched_leaves_nothing(root, tmp_path):
    shutil.copytree(root, tmp_path / "copy", symlinks=True)
    copy = tmp_path / "copy"
    shutil.rmtree(copy / ".dvc" / "cache")
    shutil.rmtree(copy / ".fieldguide", ignore_errors=True)
    with pytest.raises(
        BundleError,
        match=r"--model prod: no such folder; models/classifier of prod .* cannot be had",
    ):
        find_model("prod", copy)
    assert not list((copy / ".fieldguide" / "models").glob("*"))


def test_outside_a_project_there_are_no_names(tmp_path):
    with pytest.raises(BundleError, match="--model prod: "):
        find_model("prod", tmp_path)
