"""Which classifier is meant, in a real Git and DVC repository with a registry."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fieldguide.core.errors import BundleError
from fieldguide.inference.find import find_model
from fieldguide.network.bundle import load_bundle, save_bundle

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def project(tmp_path_factory, classifier_folder):
    """Version 1 (val_acc 0.1), tagged; version 2 (0.2); an experiment (0.3); workspace (0.4)."""
    root = tmp_path_factory.mktemp("project")
    bundle = load_bundle(classifier_folder)

    def run(*command):
        env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "DVC_NO_ANALYTICS": "1"}
        env["PATH"] = os.pathsep.join([str(BIN), env["PATH"]])
        subprocess.run(command, cwd=root, env=env, check=True, capture_output=True)

    def save(val_acc):
        changed = type(bundle)(**(vars(bundle) | {"val_acc": val_acc}))
        save_bundle(changed, root / "models" / "classifier")

    def commit(message):
        run("dvc", "add", "models/classifier")
        run("git", "add", "models")
        run("git", "commit", "-m", message)

    run("git", "init", "-b", "main")
    run("git", "config", "user.name", "A")
    run("git", "config", "user.email", "a@example.org")
    run("dvc", "init")
    save(0.1)
    commit("one")
    run("git", "tag", "first")
    run("gto", "register", "classifier", "--version", "v1.0.0")
    run("gto", "assign", "classifier", "--version", "v1.0.0", "--stage", "prod")
    save(0.2)
    commit("two")
    run("gto", "register", "classifier", "--version", "v2.0.0")
    run("gto", "assign", "classifier", "--version", "v2.0.0", "--stage", "dev")
    run("git", "branch", "prod")  # a stage goes before a branch of its name
    save(0.3)
    run("dvc", "add", "models/classifier")
    run("dvc", "exp", "save", "--name", "bold-try")
    save(0.4)
    return root


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
def test_stage_version_revision_and_experiment(model, val_acc, project):
    folder = find_model(model, project)
    assert load_bundle(folder).val_acc == val_acc
    # Asked again it is there, and the workspace is as it was.
    before = (folder / "model.json").stat().st_mtime_ns
    assert find_model(model, project) == folder
    assert (folder / "model.json").stat().st_mtime_ns == before
    assert load_bundle(project / "models" / "classifier").val_acc == 0.4


@pytest.mark.slow
def test_a_path_is_taken_as_it_is(project, classifier_folder):
    assert find_model(str(classifier_folder), project) == classifier_folder
    assert find_model("models/classifier", project) == Path("models/classifier")
    assert find_model("nowhere.onnx", project) == Path("nowhere.onnx")


@pytest.mark.slow
def test_what_is_unknown_is_named(project):
    with pytest.raises(
        BundleError, match="--model staging: no such folder; staging: no such stage, version"
    ):
        find_model("staging", project)


@pytest.mark.slow
def test_what_is_not_in_the_cache_is_told_and_not_half_there(project, tmp_path):
    shutil.copytree(project, tmp_path / "copy", symlinks=True)
    copy = tmp_path / "copy"
    shutil.rmtree(copy / ".dvc" / "cache")
    shutil.rmtree(copy / ".fieldguide", ignore_errors=True)
    with pytest.raises(
        BundleError, match=r"--model prod: models/classifier of [0-9a-f]{7} cannot be had"
    ):
        find_model("prod", copy)
    assert not list((copy / ".fieldguide" / "models").glob("*"))


def test_outside_a_project_there_are_no_names(tmp_path):
    with pytest.raises(BundleError, match="--model prod: "):
        find_model("prod", tmp_path)
