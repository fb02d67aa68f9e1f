"""A stub project with two commits, pushed to a folder, and copies of it."""

import shutil

import pytest
from stub_pipeline import StubProject


@pytest.fixture(scope="session")
def stub(tmp_path_factory):
    """The tag `first` and the branch main, whose model is better; read only."""
    stub = StubProject(tmp_path_factory.mktemp("results") / "project")
    stub.start_repository()
    for tag, values in (("first", {}), ("second", {"a": 90})):
        stub.write_pipeline(**values)
        stub.dvc("repro", "--quiet")
        stub.commit(tag)
        stub.git("tag", tag)
        stub.dvc("push", "--quiet")
    return stub


@pytest.fixture
def copy(stub, tmp_path):
    """A copy that may be damaged, and its remote."""
    shutil.copytree(stub.folder, tmp_path / "project", symlinks=True)
    shutil.copytree(stub.folder.with_name("storage"), tmp_path / "storage")
    local = f"['remote \"storage\"']\nurl = {tmp_path / 'storage'}\n"
    (tmp_path / "project" / ".dvc" / "config.local").write_text(local, encoding="utf-8")
    return StubProject(tmp_path / "project")


@pytest.fixture
def remote(copy):
    """The copy's remote: the file of an MD5. The copy has no cache."""
    shutil.rmtree(copy.folder / ".dvc" / "cache")

    def file(md5):
        found = copy.folder.with_name("storage") / "files" / "md5" / md5[:2] / md5[2:]
        found.chmod(0o644)
        return found

    return file
