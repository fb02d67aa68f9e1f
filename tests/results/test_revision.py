"""What a revision holds, read from a real Git and DVC repository with a folder as its remote."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fieldguide.core.errors import RevisionError
from fieldguide.results.revision import WORKSPACE, Out, find_revision, flat, load_yaml

BIN = Path(sys.executable).parent
STAGE = """\
stages:
  evaluate:
    cmd: >-
      cp in.csv out.csv && printf '{"acc": 0.%s}' $(wc -l < in.csv) > acc.json &&
      mkdir -p folder/a && cp in.csv folder/a/é.csv && echo z > folder/z.csv
    deps: [in.csv]
    outs: [out.csv, folder]
    metrics: [{acc.json: {cache: false}}]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two commits, "first" (one line) and main (two lines), pushed to a folder."""
    root = tmp_path_factory.mktemp("project")

    def run(*command):
        env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "DVC_NO_ANALYTICS": "1"}
        env["PATH"] = os.pathsep.join([str(BIN), env["PATH"]])
        subprocess.run(command, cwd=root, env=env, check=True, capture_output=True)

    run("git", "init", "-b", "main")
    run("git", "config", "user.name", "A")
    run("git", "config", "user.email", "a@example.org")
    run("dvc", "init")
    run("dvc", "remote", "add", "-d", "storage", str(tmp_path_factory.mktemp("remote")))
    (root / "dvc.yaml").write_text(STAGE, encoding="utf-8")
    for tag, text in (("first", "a\n"), ("second", "a\nb\n")):
        (root / "in.csv").write_text(text, encoding="utf-8")
        run("dvc", "repro")
        run("git", "add", "--all")
        run("git", "commit", "-m", tag)
        run("git", "tag", tag)
        run("dvc", "push")
    return root


@pytest.fixture
def copy(project, tmp_path):
    """A copy to damage, whose remote is a copy too."""
    shutil.copytree(project, tmp_path / "copy", symlinks=True)
    config = tmp_path / "copy" / ".dvc" / "config"
    url = config.read_text(encoding="utf-8").split("url = ")[1].strip()
    shutil.copytree(url, tmp_path / "remote")
    local = f"['remote \"storage\"']\n    url = {tmp_path / 'remote'}\n"
    (tmp_path / "copy" / ".dvc" / "config.local").write_text(local, encoding="utf-8")
    return tmp_path / "copy"


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.mark.slow
def test_results_of_each_revision(project):
    for name, lines in (("first", b"a\n"), ("main", b"a\nb\n"), (WORKSPACE, b"a\nb\n")):
        revision = find_revision(name, project)
        assert revision.read_json("acc.json") == {"acc": float(f"0.{lines.count(10)}")}
        assert revision.outs()["out.csv"] == Out("out.csv", md5(lines), len(lines), None)
        assert revision.fetch("out.csv") == lines
        assert revision.read("missing.json") is None
        assert revision.read_json("missing.json") is None
        assert revision.read_yaml("missing.yaml") == {}


@pytest.mark.slow
def test_files_of_a_folder(project):
    for name, lines in (("first", b"a\n"), (WORKSPACE, b"a\nb\n")):
        revision = find_revision(name, project)
        assert revision.files("folder") == {
            "folder/a/é.csv": md5(lines),
            "folder/z.csv": md5(b"z\n"),
        }
        assert revision.fetch("folder/a/é.csv") == lines
        assert revision.fetch("folder/z.csv") == b"z\n"
    with pytest.raises(RevisionError, match=r"folder/b\.csv of workspace: not in that folder"):
        revision.fetch("folder/b.csv")
    with pytest.raises(RevisionError, match=r"out\.csv of workspace: not in its dvc\.lock"):
        revision.files("out.csv")


@pytest.mark.slow
def test_labels_name_the_commit(project):
    full = find_revision("first", project).rev
    assert find_revision("first", project).label == f"first ({full[:7]})"
    assert find_revision(full[:7], project).label == full[:7]
    assert find_revision(WORKSPACE, project).label == WORKSPACE


@pytest.mark.slow
def test_what_the_cache_lacks_comes_from_the_remote(copy):
    shutil.rmtree(copy / ".dvc" / "cache")
    (copy / "out.csv").unlink()
    assert find_revision("first", copy).fetch("out.csv") == b"a\n"
    assert find_revision(WORKSPACE, copy).fetch("out.csv") == b"a\nb\n"
    assert find_revision("first", copy).fetch("folder/a/é.csv") == b"a\n"


@pytest.mark.slow
def test_what_nobody_has_is_named(copy, tmp_path):
    shutil.rmtree(copy / ".dvc" / "cache")
    shutil.rmtree(tmp_path / "remote")
    with pytest.raises(RevisionError, match=r"out\.csv of first \(.*\): cannot be had from DVC's"):
        find_revision("first", copy).fetch("out.csv")
    with pytest.raises(RevisionError, match=r"folder of first \(.*\): cannot be had from DVC's"):
        find_revision("first", copy).fetch("folder/z.csv")


@pytest.mark.slow
def test_a_damaged_object_is_not_taken(copy, tmp_path):
    shutil.rmtree(copy / ".dvc" / "cache")
    (stored,) = (tmp_path / "remote").rglob(md5(b"a\n")[2:])
    stored.chmod(0o644)
    stored.write_bytes(b"b\n")
    (listing,) = (
        file for file in (tmp_path / "remote").rglob("*.dir") if md5(b"a\n") in file.read_text()
    )
    listing.chmod(0o644)
    listing.write_text(listing.read_text().replace(md5(b"a\n"), md5(b"b\n")))
    first = find_revision("first", copy)
    with pytest.raises(RevisionError, match=r"out\.csv of first .* not the one that dvc\.lock"):
        first.fetch("out.csv")
    with pytest.raises(RevisionError, match=r"folder of first .* list of its files is not the one"):
        first.fetch("folder/a/é.csv")


@pytest.mark.slow
def test_a_workspace_that_was_changed_by_hand_is_not_taken(copy):
    (copy / "out.csv").unlink()
    (copy / "out.csv").write_bytes(b"c\n")
    with pytest.raises(RevisionError, match=r"out\.csv of workspace: the workspace's file is not"):
        find_revision(WORKSPACE, copy).fetch("out.csv")


@pytest.mark.slow
def test_what_is_no_out_no_json_or_no_revision(copy):
    with pytest.raises(RevisionError, match=r"in\.csv of workspace: not in its dvc\.lock"):
        find_revision(WORKSPACE, copy).fetch("in.csv")
    with pytest.raises(RevisionError, match=r"in\.csv of main \(.*\): not JSON"):
        find_revision("main", copy).read_json("in.csv")
    with pytest.raises(
        RevisionError, match=r"in\.csv of main \(.*\): found 'a b'; allowed: a mapp"
    ):
        find_revision("main", copy).read_yaml("in.csv")
    for name in ("", " "):  # of a variable that is not set; Git would say HEAD
        with pytest.raises(RevisionError, match="found an empty name"):
            find_revision(name, copy)
    with pytest.raises(RevisionError, match=r"HEAD\^\{tree\}: no such stage"):
        find_revision("HEAD^{tree}", copy)
    (copy / ".git" / "shallow").write_text("")
    with pytest.raises(RevisionError, match=r"shallow: `git fetch --unshallow --tags`"):
        find_revision("HEAD~9", copy)
    (copy / ".git" / "shallow").unlink()
    with pytest.raises(RevisionError, match=r"v9: no such stage, version, revision or experiment"):
        find_revision("v9", copy)


def test_yaml_reads_numbers_as_dvc_does():
    assert load_yaml(b"{a: 1e-05, b: 5.0e-4, c: '1e5'}") == {"a": 1e-05, "b": 5e-4, "c": "1e5"}
    assert flat({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "d": [2]}
