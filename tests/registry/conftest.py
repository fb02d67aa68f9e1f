"""The small project, pushed to a folder as its remote."""

import shutil

import pytest
import yaml
from trained import ARTIFACTS, PARAMS, STAGES, Project, write_results

REMOTE = """\
[core]
    remote = storage
    analytics = false
['remote "storage"']
    url = ../../store
"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The project after its first commit and push; copied for each test."""
    folder = tmp_path_factory.mktemp("registry") / "project"
    folder.mkdir()
    project = Project(folder)
    project.git("init", "--quiet", "--initial-branch=main")
    project.identity()
    project.dvc("init", "--quiet")
    project.write(".dvc/config", REMOTE)
    project.write("dvc.yaml", yaml.safe_dump({"stages": STAGES, "artifacts": ARTIFACTS}))
    project.write("params.yaml", yaml.safe_dump(PARAMS))
    project.write(".gto", "stages: [dev, prod]\n")
    project.write(".gitignore", "/models/classifier\n/plots/figures\n.fieldguide/\n")
    project.write("data/photos.zip", "photos")
    project.write("plots/figures/confusion.png", "png")
    write_results(project)
    project.train(0.1)
    project.commit("first results")
    project.dvc("push", "--quiet")
    return project


@pytest.fixture
def project(finished, tmp_path):
    """A copy, with a copy of its remote."""
    for name in ("project", "store"):
        shutil.copytree(finished.folder.parent / name, tmp_path / name, symlinks=True)
    return Project(tmp_path / "project")
