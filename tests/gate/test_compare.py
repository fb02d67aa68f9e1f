"""`fieldguide check` in real Git and DVC repositories: clones, worktrees, subfolders."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from here import fieldguide_here
from stub_pipeline import ROOT, StubProject

from fieldguide.gate.compare import compare
from fieldguide.results.revision import WORKSPACE

LOST = "recall.b fell from 0.800 to 0.500: −0.300 (98 % interval"


def check(folder, *arguments, status=0, environment=None):
    """Run `fieldguide check` as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "fieldguide.cli", "check", *arguments],
        cwd=folder,
        env=StubProject(folder).env | (environment or {}),
        capture_output=True,
        check=False,
    )
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """main; the branches `worse` (b lost, a won, other pixels) and `new-photo`; pushed."""
    project = StubProject(tmp_path_factory.mktemp("gate") / "project")
    project.start_repository()
    for branch, values in {
        "main": {},
        "worse": {"a": 100, "b": 50, "size": 64},
        "new-photo": {"new": 1},
    }.items():
        if branch != "main":
            project.git("checkout", "--quiet", "-b", branch, "main")
        project.write_pipeline(**values)
        project.dvc("repro", "--quiet")
        project.commit(branch)
    project.git("checkout", "--quiet", "main")
    project.dvc("checkout", "--quiet")
    project.dvc("push", "--quiet", "--all-branches")
    return project


@pytest.fixture
def clone(project, tmp_path):
    """A colleague's clone: Git's history, and DVC's remote."""
    return project.clone(tmp_path / "clone")


@pytest.mark.slow
def test_a_fresh_clone_needs_only_git_and_the_remote(clone):
    # The two differ in image size: other pixels of the same photos, in more shards and another
    # order, are the same test set.
    done = check(
        clone.folder,
        *("--against", "main", "--candidate", "worse"),
        *("--json", "out/gate.json", "--markdown", "-"),
        status=1,
    )
    assert f"- {LOST}" in done.stdout
    assert done.stdout.startswith("### ❌ Regression in 1 of 8 checks: worse")
    assert LOST in done.stderr  # stdout is the Markdown's
    found = json.loads(clone.read("out/gate.json"))
    assert (found["verdict"], found["exit_status"], found["photos"]) == ("regression", 1, 200)
    assert found["paired"] is True
    failed = [one["name"] for one in found["checks"] if one["status"] == "failed"]
    assert failed == ["recall.b"]  # the accuracy is the same
    assert not (clone.folder / "data" / "prepared").exists()


@pytest.mark.slow
def test_the_workspace_passes_against_its_own_commit(project):
    done = fieldguide_here("check", "--against", "main", cwd=project.folder)
    assert done.returncode == 0
    assert "No regression in 8 checks: workspace against main (" in done.stdout
    assert "on the same 200 test photos" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_the_real_pipeline_passes_against_its_own_commit(finished):
    checks = ROOT / "checks.yaml"
    outcome = compare(finished.folder, "main", candidate=WORKSPACE, checks=checks)
    assert (outcome.exit_status, outcome.paired, outcome.refused) == (0, True, "")
    assert {"test.acc", "recall.ant", "model.size"} < {one.name for one in outcome.checks}


@pytest.mark.slow
def test_a_mistake_of_the_caller_is_status_2(project):
    error = check(project.folder, "--against", "nowhere", status=2).stderr
    assert "nowhere: no such stage, version, Git revision or experiment" in error
    done = fieldguide_here(
        "check", "--against", "main", "--checks", "none.yaml", cwd=project.folder
    )
    assert done.returncode == 2
    assert done.stderr == "fieldguide: none.yaml: cannot be read (No such file or directory)\n"
    assert fieldguide_here("check", cwd=project.folder).returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_of_any_encoding_gets_the_verdict_and_utf8_files(project, tmp_path, encoding):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fieldguide.cli", "check"),
            *("--against", "main", "--candidate", "worse"),
            *("--json", tmp_path / "gate.json", "--markdown", tmp_path / "gate.md"),
        ],
        cwd=project.folder,
        env=project.env | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "recall.b fell from 0.800 to 0.500" in done.stdout.decode(encoding)
    for name in ("gate.json", "gate.md"):
        assert LOST in (tmp_path / name).read_text(encoding="utf-8")


@pytest.mark.slow
def test_files_are_written_before_anything_is_printed(project, tmp_path):
    file = tmp_path / "gate.json"
    process = project.start(
        *(sys.executable, "-m", "fieldguide.cli", "check", "--against", "worse", "--json", file)
    )
    process.stdout.close()  # printing fails
    process.wait(timeout=60)
    assert json.loads(file.read_text(encoding="utf-8"))["verdict"] == "regression"


@pytest.mark.slow
def test_a_photo_replaced_under_its_name_is_another_test_set(project):
    outcome = compare(project.folder, "main", candidate="new-photo")
    assert outcome.exit_status == 2
    assert "differ in 1 photos, such as test/b/099.png. Scores on different" in outcome.refused


@pytest.mark.slow
def test_without_predictions_counts_decide(clone, project):
    storage = clone.folder.with_name("storage")
    shutil.copytree(project.folder.with_name("storage"), storage)
    clone.dvc("remote", "modify", "--local", "storage", "url", str(storage))
    lock = clone.git("show", "origin/worse:dvc.lock")
    md5 = lock.split("path: metrics/predictions.csv")[1].split("md5: ")[1].split()[0]
    (storage / "files" / "md5" / md5[:2] / md5[2:]).unlink()
    outcome = compare(clone.folder, "main", candidate="worse")
    assert outcome.exit_status == 1
    assert not outcome.paired
    assert outcome.notes[0].startswith(
        "compared by counts, not photo by photo: metrics/predictions.csv of worse ("
    )
    assert [one.name for one in outcome.checks if one.status == "failed"] == ["recall.b"]


@pytest.mark.slow
def test_changed_stale_and_missing_results_are_refused(clone):
    def refused():
        outcome = compare(clone.folder, "main", candidate=WORKSPACE)
        assert outcome.exit_status == 2
        return outcome.refused

    clone.edit("metrics/test.json", "0.75", "0.95")
    assert refused() == (
        "metrics/test.json of workspace: not the file that dvc.lock names: it was changed since; "
        "run `dvc repro`"
    )
    clone.git("checkout", ".")
    lock = (clone.folder / "dvc.lock").read_text(encoding="utf-8")
    md5 = lock.split("path: models/classifier")[1].split("md5: ")[1].split()[0]
    at = lock.index(md5, lock.index("  train:"))  # train's output, and not the dep of evaluate
    text = f"{lock[:at]}{'0' * 32}.dir{lock[at + len(md5) :]}"
    (clone.folder / "dvc.lock").write_text(text, encoding="utf-8")
    assert "evaluate did not run on this models/classifier, but on an earlier one" in refused()
    (clone.folder / "dvc.lock").unlink()
    assert refused() == "data/prepared of workspace: dvc.lock: missing; run `dvc repro`"


@pytest.mark.slow
def test_other_checks_than_those_of_the_reference_are_noted(clone):
    file = clone.folder / "checks.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "\n# looser\n", encoding="utf-8")
    outcome = compare(clone.folder, "main", candidate="main")
    assert outcome.exit_status == 0
    assert outcome.notes[0].startswith("checks.yaml is not the same as in main (")
    shutil.copy(file, clone.folder.parent)  # outside the project, so that no revision has it
    outcome = compare(clone.folder, "main", candidate="main", checks=Path("../checks.yaml"))
    assert (outcome.exit_status, outcome.notes) == (0, [])


@pytest.fixture
def nested(clone):
    """A second, better project of the same layout in the subfolder `birds/` of the clone."""
    birds = StubProject(clone.folder / "birds")
    birds.write_pipeline(a=95, b=95)
    birds.dvc("init", "--quiet", "--subdir")
    birds.dvc("repro", "--quiet")
    birds.commit("birds")
    return birds


@pytest.mark.slow
def test_a_project_in_a_subfolder_is_compared_with_itself(nested, clone):
    nested.set_params(a=84, b=84)  # 11 points less, but more than the project at the top has
    nested.dvc("repro", "--quiet")
    for environment in ({}, {"GIT_DIR": str(clone.folder / ".git")}):  # as a Git hook may set it
        done = check(nested.folder, "--against", "main", status=1, environment=environment)
        assert "test.acc fell from 0.950 to 0.840: −0.110" in done.stdout
    assert fieldguide_here("check", "--against", "main", cwd=clone.folder).returncode == 0
    # In another folder Git's top folder must not be taken either.
    (clone.folder / "docs").mkdir()
    shutil.copy(ROOT / "checks.yaml", clone.folder / "docs")
    outcome = compare(clone.folder / "docs", "main", candidate=WORKSPACE)
    assert "has neither params.yaml nor dvc.lock in" in outcome.refused


@pytest.mark.slow
def test_a_linked_worktree(clone, tmp_path):
    clone.git("worktree", "add", "--quiet", str(tmp_path / "tree"), "origin/worse")
    assert LOST in check(tmp_path / "tree", "--against", "main", status=1).stdout


@pytest.mark.slow
def test_a_submodule(project, tmp_path):
    outer = StubProject(tmp_path)
    outer.git("init", "--quiet")
    allow = ("-c", "protocol.file.allow=always")
    outer.git(*allow, "submodule", "--quiet", "add", str(project.folder), "inner")
    inner = tmp_path / "inner"
    assert LOST in check(inner, "--against", "main", "--candidate", "worse", status=1).stdout


@pytest.mark.slow
def test_a_detached_head(clone):
    clone.git("checkout", "--quiet", "--detach", "origin/worse")
    assert LOST in check(clone.folder, "--against", "main", status=1).stdout
    assert compare(clone.folder, "main", candidate="HEAD").exit_status == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "kind"),
    [(["--depth", "1"], "is shallow")],
)
def test_the_advice_in_a_partial_clone_brings_the_revision(project, tmp_path, options, kind):
    project.git("clone", "--quiet", *options, project.folder.as_uri(), str(tmp_path / "part"))
    names = ("--against", "main", "--candidate", "worse")
    error = check(tmp_path / "part", *names, status=2).stderr
    assert f"worse: no such stage, version, Git revision or experiment; this clone {kind}" in error
    (command,) = re.findall("`(git fetch .*?)`", error)
    StubProject(tmp_path / "part").run("sh", "-c", command)
    assert LOST in check(tmp_path / "part", *names, status=1).stdout


@pytest.mark.slow
def test_the_repository_of_another_owner_is_refused_in_gits_words(clone):
    owner = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    done = check(clone.folder, "--against", "main", status=2, environment=owner)
    assert "detected dubious ownership in repository" in done.stderr
    assert "git config --global --add safe.directory" in done.stderr
