"""DVC's cache and remote through `ObjectStore`, with the installed version of DVC."""

import pytest

from fieldguide.core.errors import RemoteError
from fieldguide.results.dvc import ObjectStore
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
    assert ObjectStore(stub.folder).read(found) == stub.read(PREDICTIONS)


def test_an_object_of_the_remote_is_kept_in_the_cache(copy, remote, found):
    data = copy.read(PREDICTIONS)
    assert ObjectStore(copy.folder).read(found) == data
    assert cached(copy, found).read_bytes() == data
    remote(found).unlink()
    assert ObjectStore(copy.folder).read(found) == data


def test_an_object_that_is_damaged_in_the_cache_is_fetched_again(copy, found):
    data = copy.read(PREDICTIONS)
    cached(copy, found).chmod(0o644)
    cached(copy, found).write_bytes(b"damaged")
    assert ObjectStore(copy.folder).read(found) == data
    assert cached(copy, found).read_bytes() == data


def test_an_object_that_is_damaged_on_the_remote_is_refused(copy, remote, found):
    remote(found).write_bytes(b"damaged")
    with pytest.raises(RemoteError, match=rf"remote storage: {found} is damaged there; `fieldg"):
        ObjectStore(copy.folder).read(found)
    assert not cached(copy, found).exists()


def test_without_a_remote_the_cache_is_all_there_is(copy, found):
    copy.dvc("remote", "default", "--unset")
    assert ObjectStore(copy.folder).read(found)
    cached(copy, found).unlink()
    with pytest.raises(RemoteError, match="not in the cache, and no default remote is set"):
        ObjectStore(copy.folder).read(found)


def test_a_folder_that_is_no_dvc_project(tmp_path):
    with pytest.raises(RemoteError, match="not inside of a DVC repository"):
        ObjectStore(tmp_path).read("0" * 32)
