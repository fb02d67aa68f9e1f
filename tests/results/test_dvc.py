"""The adapter to DVC, with the installed version of DVC."""

import subprocess
import sys

import pytest

from fieldguide.core.errors import DvcError, RemoteError
from fieldguide.results.dvc import (
    DvcProject,
    Scope,
    cache_folder,
    cached_dependencies,
    copy_runs,
    dvc,
)
from fieldguide.results.paths import MODEL
from fieldguide.results.results import read_results
from fieldguide.results.revision import WORKSPACE

pytestmark = pytest.mark.slow
PREDICTIONS = "metrics/predictions.csv"


@pytest.fixture
def found(stub):
    """MD5 of the predictions."""
    return read_results(WORKSPACE, stub.folder).outputs[PREDICTIONS].md5


def cached(copy, md5):
    return copy.folder / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


def test_an_object_of_the_cache(stub, found):
    assert DvcProject(stub.folder).read(found) == stub.read(PREDICTIONS)


def test_an_object_of_the_remote_is_kept_in_the_cache(copy, remote, found):
    data = copy.read(PREDICTIONS)
    assert DvcProject(copy.folder).read(found) == data
    assert cached(copy, found).read_bytes() == data
    remote(found).unlink()
    assert DvcProject(copy.folder).read(found) == data


def test_an_object_that_is_damaged_in_the_cache_is_fetched_again(copy, found):
    data = copy.read(PREDICTIONS)
    cached(copy, found).chmod(0o644)
    cached(copy, found).write_bytes(b"damaged")
    assert DvcProject(copy.folder).read(found) == data
    assert cached(copy, found).read_bytes() == data


def test_an_object_that_is_damaged_on_the_remote_is_refused(copy, remote, found):
    remote(found).write_bytes(b"damaged")
    with pytest.raises(RemoteError, match=rf"remote storage: {found} is damaged there; `fieldg"):
        DvcProject(copy.folder).read(found)
    assert not cached(copy, found).exists()


def test_without_a_remote_the_cache_is_all_there_is(copy, found):
    copy.dvc("remote", "default", "--unset")
    assert DvcProject(copy.folder).read(found)
    cached(copy, found).unlink()
    with pytest.raises(RemoteError, match=r"no default remote in \.dvc/config; choose one of: st"):
        DvcProject(copy.folder).read(found)


def test_a_folder_that_is_no_dvc_project(tmp_path):
    with pytest.raises(DvcError, match=f"{tmp_path}: you are not inside of a DVC repository"):
        DvcProject(tmp_path).read("0" * 32)


def test_outputs_that_dvc_caches_in_each_revision(stub):
    first = read_results("first", stub.folder)
    project = DvcProject(stub.folder)
    for scope, results in (
        (Scope(), read_results(WORKSPACE, stub.folder)),
        (Scope({first.revision.rev: "first"}), first),
    ):
        (model,) = [out for out in project.outputs(scope) if out.path == MODEL]
        assert model.rev == ("first" if scope.revs else "")
        assert (model.md5, model.size) == (results.model.md5, results.model.size)
        assert (model.remote, model.not_pushed) == (None, None)
    tags = {(out.rev, out.path) for out in project.outputs(Scope(all_tags=True))}
    assert {("first", MODEL), ("second", MODEL)} <= tags
    assert "metrics/test.json" not in {path for _, path in tags}  # Git keeps it


def test_objects_of_a_remote(copy, remote, found, tmp_path):
    data, missing = copy.read(PREDICTIONS), "0" * 32
    storage = DvcProject(copy.folder).remote("storage")
    assert storage.url == str(tmp_path / "storage")
    assert storage.sizes([found, missing]) == {found: len(data)}
    assert storage.read(found) == data
    assert storage.md5(found) == found
    with pytest.raises(RemoteError, match=f"remote storage .*: {missing} is not there"):
        storage.read(missing)
    remote(found).write_bytes(b"damaged")
    assert storage.md5(found) != found
    (tmp_path / "whole").write_bytes(data)
    storage.write(found, tmp_path / "whole")
    assert remote(found).read_bytes() == data
    assert [file.name for file in remote(found).parent.iterdir()] == [found[2:]]


@pytest.fixture
def root(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def test_dvcs_own_error_is_reported(root):
    with pytest.raises(DvcError, match=r"dvc push failed in .*: ERROR: .*no remote") as error:
        dvc(root, "push")
    assert "\n" not in str(error.value)


def test_the_cache_is_where_the_configuration_says(root):
    assert cache_folder(root) == root / ".dvc/cache"
    dvc(root, "config", "cache.dir", "elsewhere")
    assert cache_folder(root) == root / "elsewhere"


def test_dependencies_that_dvc_tracks(root):
    for name in ("code", "photos"):
        (root / name).write_text(name)
    dvc(root, "add", "--quiet", "photos")
    (root / "dvc.yaml").write_text(
        "stages:\n"
        "  prepare: {cmd: cp photos store, deps: [photos], outs: [store]}\n"
        "  train: {cmd: cp store model, deps: [code, store, photos], outs: [model]}\n"
    )
    expected = {str(root / "store"), str(root / "photos")}
    assert set(cached_dependencies(root, "train")) == expected


def test_runs_are_copied_or_deleted(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for key, value in (("aa", "1"), ("aa", "2"), ("ab", "3")):
        run = source / "runs" / key[:1] / key / value
        run.parent.mkdir(parents=True, exist_ok=True)
        run.write_text(value)
    copy_runs(source, target, is_wanted=lambda run: run.read_text() == "2")
    assert [path.name for path in target.rglob("*") if path.is_file()] == ["2"]
    assert [path.name for path in source.rglob("*") if path.is_file()] == ["2"]
    assert not (source / "runs/a/ab").exists()  # DVC cannot read an empty folder of a key
    copy_runs(source, target)
    assert sorted(path.name for path in (target / "runs").rglob("*")) == ["2", "a", "aa"]
