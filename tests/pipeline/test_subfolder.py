"""A project in a folder of a bigger Git repository, with another project of the same layout."""

import shutil

import pytest
from project import Project
from test_experiments import queue_states

pytestmark = pytest.mark.slow


@pytest.fixture
def two(finished, tmp_path):
    """The projects at the top and in birds/, in one commit."""
    top = tmp_path / "repository"
    shutil.copytree(finished.folder, top, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    shutil.copytree(top, tmp_path / "birds", symlinks=True)
    shutil.move(tmp_path / "birds", top / "birds")
    projects = Project(top), Project(top / "birds")
    projects[0].git("init", "--quiet", "--initial-branch=main")
    projects[0].name_user()
    projects[0].git("add", ".")
    projects[0].git("commit", "--quiet", "--message", "two projects")
    return projects


def bins(project, name):
    """evaluate.calibration_bins of an experiment, as Git has it."""
    revision = project.git("rev-parse", name).strip()
    return project.git("show", f"{revision}:./params.yaml").count("calibration_bins: 10")


def test_repro_and_experiments_stay_in_their_project(two):
    top, birds = two
    for project in two:
        output = project.dvc("repro")
        assert "Running stage" not in output
    setting = ("-S", "evaluate.calibration_bins=10")
    birds.dvc("exp", "run", "--name", "here", *setting, "evaluate")
    assert "calibration_bins: 10" in birds.read("params.yaml").decode()
    birds.git("checkout", "--quiet", ".")
    birds.dvc("exp", "run", "--temp", "--name", "aside", *setting, "evaluate")
    birds.dvc("exp", "run", "--queue", "--name", "later", *setting, "evaluate")
    birds.dvc("queue", "start")
    assert queue_states(birds) == {"later": "Success"}
    shown = birds.dvc("exp", "list", "--name-only").split()
    assert sorted(shown) == ["aside", "here", "later"]
    for name in shown:
        ref = f"refs/exps/*/*/{name}"
        commit = birds.git("for-each-ref", "--format=%(objectname)", ref).strip()
        assert bins(birds, commit) == 1
        assert bins(top, commit) == 0
    assert top.git("status", "--porcelain", "--", ".", ":!birds") == ""
