"""The adapter of DVC, with real DVC; tests/sweeps use its other functions."""

import subprocess
import sys

import pytest

from fieldguide.core.errors import DvcError
from fieldguide.results.dvc import cache_folder, cached_dependencies, copy_runs, dvc

pytestmark = pytest.mark.slow


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
