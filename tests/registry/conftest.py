"""The small project, with a folder as its remote; and a second one in a subfolder."""

import shutil

import pytest
from trained import Trained, write_inputs, write_results

REMOTE = """\
[core]
    remote = storage
    analytics = false
['remote "storage"']
    url = {url}
"""


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """The project after its first commit and push; read only."""
    project = Trained(tmp_path_factory.mktemp("registry") / "project")
    project.folder.mkdir()
    project.git("init", "--quiet", "--initial-branch=main")
    project.name_user()
    project.dvc("init", "--quiet")
    write_inputs(project.folder)
    write_results(project.folder)
    project.write(".gto", "stages: [dev, prod]\n")
    project.write(
        ".gitignore",
        "/models/classifier\n/metrics/environment.json\n/metrics/trust.json\n/plots/figures\n"
        ".fieldguide/\n",
    )
    project.write("plots/figures/filters.png", "png")
    project.write(".dvc/config", REMOTE.format(url=project.folder.with_name("store")))
    project.train(0.1)
    project.commit("first results")
    project.dvc("push", "--quiet")
    return project


@pytest.fixture
def project(original, tmp_path):
    """A copy with a remote of its own."""
    return _copy(original, tmp_path / "project")


@pytest.fixture
def two(original, tmp_path):
    """The project at the top of a repository, and another one of the same layout in birds/."""
    top = _copy(original, tmp_path / "repository")
    birds = _copy(original, top.folder / "birds", store=tmp_path / "birds_store")
    shutil.rmtree(birds.folder / ".git")
    (birds.folder / ".gto").unlink()
    birds.train(0.3)
    birds.dvc("push", "--quiet")
    top.commit("birds")
    return top, birds


def _copy(original, folder, store=None):
    store = store or folder.with_name("store")
    shutil.copytree(original.folder, folder, symlinks=True)
    shutil.copytree(original.folder.with_name("store"), store)
    copy = Trained(folder)
    copy.write(".dvc/config", REMOTE.format(url=store))
    if (folder / ".git").exists():
        copy.git("commit", "--quiet", "--all", "--amend", "--no-edit")
    return copy
