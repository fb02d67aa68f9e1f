"""Names of revisions, and the files of each in a real Git and DVC repository."""

import re
import shutil

import pytest
from stub_pipeline import StubProject

from fieldguide.core.errors import RevisionError
from fieldguide.core.files import md5
from fieldguide.results.git import git
from fieldguide.results.revision import WORKSPACE, find_revision, flat, load_yaml


def locked(revision, path):
    """MD5 of an output, from the revision's dvc.lock."""
    stages = revision.read_yaml("dvc.lock")["stages"].values()
    return next(out["md5"] for stage in stages for out in stage["outs"] if out["path"] == path)


@pytest.mark.slow
def test_files_of_each_revision(stub):
    for name, hits in (("first", 70), ("main", 90), (WORKSPACE, 90)):
        revision = find_revision(name, stub.folder)
        assert f"a: {hits}".encode() in revision.read("params.yaml")
        assert revision.read_yaml("params.yaml")["train"] == {"a": hits, "b": 80}
        data = revision.fetch(
            "metrics/predictions.csv", locked(revision, "metrics/predictions.csv")
        )
        assert data.count(b",a,a,") == hits
        assert revision.read("missing.json") is None
        assert revision.read_yaml("missing.yaml") == {}


@pytest.mark.slow
def test_files_of_a_folder(stub):
    revision = find_revision("first", stub.folder)
    found = revision.listing("data/prepared", locked(revision, "data/prepared"))
    assert list(found) == [
        f"data/prepared/{name}" for name in ("dataset.json", "left_out.csv", "test.csv")
    ]
    data = revision.fetch("data/prepared/test.csv", found["data/prepared/test.csv"])
    assert md5(data) == found["data/prepared/test.csv"]


@pytest.mark.slow
def test_labels_name_the_commit(stub):
    full = find_revision("first", stub.folder).rev
    assert find_revision("first", stub.folder).label == f"first ({full[:7]})"
    assert find_revision(full[:7], stub.folder).label == full[:7]
    assert find_revision(WORKSPACE, stub.folder).label == WORKSPACE


@pytest.mark.slow
def test_what_nobody_has_is_explained(copy, remote):
    first = find_revision("first", copy.folder)
    found = locked(first, "metrics/predictions.csv")
    remote(found).unlink()
    with pytest.raises(
        RevisionError, match=r"^cannot be had from DVC's cache or remote \(.*`dvc pu"
    ):
        first.fetch("metrics/predictions.csv", found)
    with pytest.raises(RevisionError, match=r"^cannot be had from DVC's cache or remote \("):
        first.listing("data/prepared", f"{'0' * 32}.dir")


@pytest.mark.slow
def test_a_file_that_was_changed_in_the_workspace_is_not_taken(copy):
    workspace = find_revision(WORKSPACE, copy.folder)
    found = locked(workspace, "metrics/predictions.csv")
    (copy.folder / "metrics" / "predictions.csv").unlink()
    (copy.folder / "metrics" / "predictions.csv").write_bytes(b"c\n")
    with pytest.raises(RevisionError, match=r"the file is not the one that dvc\.lock names"):
        workspace.fetch("metrics/predictions.csv", found)


@pytest.mark.slow
def test_a_file_that_is_not_yaml_or_not_a_mapping(copy):
    for text, reason in (("a b\n", "found 'a b'; allowed: a mapping"), ("a: [", "not YAML")):
        (copy.folder / "params.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(RevisionError, match=rf"params\.yaml of workspace: {reason}"):
            find_revision(WORKSPACE, copy.folder).read_yaml("params.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", " "])  # of a variable that is not set; Git would take HEAD
def test_an_empty_name_is_refused(stub, name):
    with pytest.raises(RevisionError, match="found an empty name; allowed: workspace, or a stage"):
        find_revision(name, stub.folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v9", "HEAD~9", "HEAD^{tree}", "--all", "main:params.yaml"])
def test_what_is_not_a_revision(stub, name):
    reason = "no such stage, version, Git revision or experiment"
    with pytest.raises(RevisionError, match=rf"^{re.escape(name)}: {reason}$"):
        find_revision(name, stub.folder)


@pytest.mark.slow
def test_a_branch_that_only_the_git_remote_has(stub, tmp_path):
    stub.git("branch", "--force", "other", "first")
    clone = stub.clone(tmp_path / "clone")
    assert find_revision("other", clone.folder).rev == find_revision("first", stub.folder).rev


@pytest.mark.slow
def test_an_experiment_is_found_by_its_name(copy):
    copy.git("tag", "--delete", "second")
    printed = copy.dvc("exp", "run", "--name", "better", "--set-param", "train.a=95")
    assert "better" in printed
    assert find_revision("better", copy.folder).read_yaml("params.yaml")["train"]["a"] == 95
    copy.commit("another baseline")
    copy.dvc("exp", "run", "--name", "better", "--set-param", "train.a=96")
    with pytest.raises(RevisionError, match=r"better: 2 experiments of different baselines have"):
        find_revision("better", copy.folder)


@pytest.mark.slow
def test_a_folder_without_git_is_refused_in_gits_words(tmp_path):
    with pytest.raises(RevisionError, match=r"^main: git rev-parse failed in .* not a git repo"):
        find_revision("main", tmp_path)


@pytest.mark.slow
def test_files_of_a_subfolder_are_those_of_the_project(copy, monkeypatch):
    birds = StubProject(copy.folder / "birds")
    birds.write_pipeline(a=33)
    copy.commit("birds")
    shutil.rmtree(birds.folder)
    birds.folder.mkdir()
    # Git sets GIT_DIR for hooks, and takes the folder it runs in for its top folder then.
    for git_dir in (None, copy.folder / ".git"):
        if git_dir is not None:
            monkeypatch.setenv("GIT_DIR", str(git_dir))
        found = find_revision("main", birds.folder).read_yaml("params.yaml")
        assert found["train"]["a"] == 33
        assert git(birds.folder, "rev-parse", "--show-prefix") == "birds/\n"


def test_yaml_reads_numbers_as_dvc_does():
    assert load_yaml(b"{a: 1e-05, b: 5.0e-4, c: '1e5'}") == {"a": 1e-05, "b": 5e-4, "c": "1e5"}
    assert flat({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "d": [2]}
