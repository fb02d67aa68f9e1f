"""Releases of a project that is not Git's top folder, and in every kind of checkout."""

import json
import subprocess

import pytest
from here import fieldguide_here
from trained import Trained

from fieldguide.core.errors import BundleError, RegistryError
from fieldguide.inference.find import find_model
from fieldguide.registry.listing import list_releases
from fieldguide.registry.release import assign, release, unassign

pytestmark = pytest.mark.slow


def val_acc(folder):
    return json.loads((folder / "model.json").read_text())["val_acc"]


def test_two_projects_of_one_repository_have_releases_of_their_own(two, tmp_path):
    top, birds = two
    url = tmp_path / "repository.git"
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", url], check=True)
    top.git("remote", "add", "origin", str(url))
    top.git("push", "--quiet", "--set-upstream", "origin", "main")
    assert release(top.folder, "v1.0.0", stage="prod").tags == [
        "classifier@v1.0.0",
        "classifier#prod#1",
    ]
    with pytest.raises(RegistryError, match=r"found 'pord'; allowed, by the file \.gto: dev"):
        release(birds.folder, "v1.0.0", stage="pord")
    # What another project has not committed does not matter.
    top.write("notes.txt", "not committed")
    done = release(birds.folder, "v1.0.0", stage="prod", push=True)
    assert done.tags == ["birds=classifier@v1.0.0", "birds=classifier#prod#1"]
    changed = birds.git("show", "--format=", "--name-only", done.commit)
    assert changed == "birds/models/MODEL_CARD.md"
    assert b"dvc artifacts get URL birds:classifier --rev" in birds.read("models/MODEL_CARD.md")

    for name in ("prod", "v1.0.0"):
        assert val_acc(find_model(name, top.folder)) == 0.1
        assert val_acc(find_model(name, birds.folder)) == 0.3
    for project, commit in ((top, f"{done.commit}^"), (birds, done.commit)):
        (row,) = list_releases(project.folder)
        assert (row.version, row.stages) == ("v1.0.0", ["prod"])
        assert row.commit == project.git("rev-parse", commit)
    for number, which in enumerate((("--rev", "v1.0.0"), ("--stage", "prod"))):
        got = tmp_path / f"got{number}"
        birds.dvc("artifacts", "get", str(url), "birds:classifier", *which, "--out", str(got))
        assert val_acc(got) == 0.3

    assert unassign(birds.folder, "prod", push=True).tags == ["birds=classifier#prod!#2"]
    assert "birds=classifier#prod!#2" in birds.git("ls-remote", "--tags", "origin")
    with pytest.raises(BundleError, match=r"prod: withdrawn by the tag birds=classifier#prod!#2"):
        find_model("prod", birds.folder)
    assert val_acc(find_model("prod", top.folder)) == 0.1
    assert assign(birds.folder, "v1.0.0", "prod").tags == ["birds=classifier#prod#3"]


def test_remote_verify_looks_for_the_files_of_its_own_project(two, tmp_path):
    top, birds = two
    top.git("tag", "first")
    (lost,) = (tmp_path / "birds_store").rglob(birds.md5("models/classifier/model.json")[2:])
    lost.unlink()
    for options, file in (((), ""), (("--rev", "first"), " (first)")):
        done = fieldguide_here("remote", "verify", *options, cwd=top.folder)
        assert done.returncode == 0, done.stdout
        done = fieldguide_here("remote", "verify", *options, cwd=birds.folder)
        assert done.returncode == 1
        assert f"missing\n  models/classifier/model.json{file}\n" in done.stdout
    done = fieldguide_here("remote", "verify", "--repair", cwd=birds.folder)
    assert "1 uploaded again, now all there" in done.stdout


def test_a_folder_of_a_repository_with_one_dvc_project_at_its_top(project):
    """As `dvc init` at the top and dvc.yaml in a folder."""
    birds = Trained(project.folder / "birds")
    birds.folder.mkdir()
    for path in project.git("ls-files").splitlines():
        if not path.startswith(".dvc") and path != ".gto":
            (birds.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (project.folder / path).rename(birds.folder / path)
    (project.folder / "plots/figures").rename(birds.folder / "plots/figures")
    for path in ("metrics/environment.json", "metrics/trust.json"):
        (project.folder / path).rename(birds.folder / path)
    birds.train(0.4)
    project.commit("into a folder")
    project.dvc("push", "--quiet")
    assert release(birds.folder, "v1.0.0").tags == ["birds=classifier@v1.0.0"]
    assert val_acc(find_model("v1.0.0", birds.folder)) == 0.4
    got = project.folder.parent / "got"
    get = ("artifacts", "get", str(project.folder), "birds:classifier", "--rev", "v1.0.0")
    birds.dvc(*get, "--out", str(got))
    assert val_acc(got) == 0.4


def test_a_linked_worktree(project, tmp_path):
    release(project.folder, "v1.0.0", stage="prod")
    project.git("worktree", "add", "--quiet", "-b", "better", str(tmp_path / "tree"))
    tree = Trained(tmp_path / "tree")
    tree.dvc("pull", "--quiet")
    tree.train(0.2)
    tree.commit("better")
    tree.dvc("push", "--quiet")
    assert release(tree.folder, "v2.0.0", stage="prod").tags == [
        "classifier@v2.0.0",
        "classifier#prod#2",
    ]
    for folder in (project.folder, tree.folder):
        assert val_acc(find_model("prod", folder)) == 0.2
        assert val_acc(find_model("v1.0.0", folder)) == 0.1


def test_a_submodule(project, tmp_path):
    outer = Trained(tmp_path / "outer")
    outer.folder.mkdir()
    outer.git("init", "--quiet")
    outer.name_user()
    allow = ("-c", "protocol.file.allow=always")
    outer.git(*allow, "submodule", "--quiet", "add", str(project.folder), "inner")
    outer.commit("a submodule")
    inner = Trained(outer.folder / "inner")
    inner.name_user()
    inner.dvc("pull", "--quiet")
    # Its own repository: the artifact has no folder in its name.
    assert release(inner.folder, "v1.0.0", stage="dev").tags == [
        "classifier@v1.0.0",
        "classifier#dev#1",
    ]
    assert val_acc(find_model("dev", inner.folder)) == 0.1
    assert outer.git("tag") == ""


def test_a_detached_head(project):
    first = release(project.folder, "v1.0.0")
    project.git("checkout", "--quiet", "--detach", "HEAD~1")
    # The card's commit would be on no branch.
    with pytest.raises(RegistryError, match="HEAD: no branch is checked out to commit the card on"):
        release(project.folder, "v1.1.0")
    project.git("checkout", "--quiet", "--detach", first.commit)
    assert release(project.folder, "v1.0.0", stage="dev").tags == ["classifier#dev#1"]
    assert assign(project.folder, "v1.0.0", "prod").tags == ["classifier#prod#2"]
    assert val_acc(find_model("prod", project.folder)) == 0.1
    assert unassign(project.folder, "dev").tags == ["classifier#dev!#3"]
