"""Servers that go away in the middle of a push or a pull, and come back."""

import hashlib
import os
import shutil
import sys

import pytest
from project import remote_at

pytestmark = [pytest.mark.slow, pytest.mark.soak]
MEGABYTE = 1 << 20


@pytest.fixture
def large(small):
    """The project with a folder of two files and one file, of three megabytes each."""
    (small.folder / "large").mkdir()
    for name in ("large/one", "large/two", "large.bin"):
        (small.folder / name).write_bytes(os.urandom(3 * MEGABYTE))
    small.dvc("add", "--quiet", "large", "large.bin")
    small.git("add", ".")
    small.git("commit", "--quiet", "--message", "large files")
    small.env["AWS_MAX_ATTEMPTS"] = "1"  # DVC tries five times by itself; more would take a minute
    return small


def fails(project, *command):
    """Run DVC, which fails with status 1 or 255, and return its output."""
    process = project.start(sys.executable, "-m", "dvc", *command)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0, output
    return output


def clone(project, folder):
    """Another person's copy, who has the same credentials."""
    other = project.clone(folder)
    for name in ("config", "config.local"):
        shutil.copy(project.folder / ".dvc" / name, other.folder / ".dvc" / name)
    other.env = project.env
    return other


def wrong_in_the_cache(project):
    """Objects of the local cache whose bytes are not those of their names."""
    cache = project.folder / ".dvc" / "cache" / "files" / "md5"
    found = [path for path in cache.glob("??/*") if path.is_file() and len(path.name) >= 30]
    return [path for path in found if name_of(path) not in path.parent.name + path.name]


def name_of(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def mortal(s3):
    """The S3 server; it is started again for other tests in any case."""
    yield s3
    s3.start()


def test_s3_killed_in_a_push_and_in_a_pull(large, mortal, prefixes, line, tmp_path):
    between = line(mortal.port)
    # Without `verify`, DVC puts the part of a file that it received into its cache as the whole.
    config = mortal.remote(next(prefixes), between.port) + "    verify = true\n"
    large.configure(config, mortal.keys_of_remote())
    between.cut_after(5 * MEGABYTE, mortal.kill)
    assert "failed to transfer" in fails(large, "push")
    between.mend()
    mortal.start()
    assert {one.state for one in large.verify().findings} == {
        "missing"
    }  # no object is there in part
    large.push()
    assert large.verify(deep=True).complete

    other = clone(large, tmp_path / "other")
    between.cut_after(5 * MEGABYTE, mortal.kill)
    assert "failed to transfer" in fails(other, "pull")
    assert wrong_in_the_cache(other) == []
    between.mend()
    mortal.start()
    other.dvc("pull")
    assert wrong_in_the_cache(other) == []
    for name in ("large/one", "large/two", "large.bin", "model.bin"):
        assert other.read(name) == large.read(name)


def test_ssh_cut_in_a_push_and_in_a_pull(large, ssh, line, tmp_path):
    between = line(ssh.port)
    url = f"ssh://{ssh.user}@127.0.0.1:{between.port}{tmp_path}/storage"
    key = f"['remote \"storage\"']\n    keyfile = {ssh.key}\n"
    large.configure(remote_at(url) + "    verify = true\n", key)
    between.cut_after(5 * MEGABYTE, None)
    assert "failed to transfer" in fails(large, "push")
    between.mend()
    assert {one.state for one in large.verify().findings} == {"missing"}
    large.push()
    report = large.verify(deep=True)
    assert report.complete
    assert report.objects == 8  # 4 of `small`; the large folder's list, and three files

    other = clone(large, tmp_path / "other")
    between.cut_after(5 * MEGABYTE, None)
    assert "failed to transfer" in fails(other, "pull")
    assert wrong_in_the_cache(other) == []
    between.mend()
    other.dvc("pull")
    assert wrong_in_the_cache(other) == []
    assert other.read("large.bin") == large.read("large.bin")


def test_ssh_object_cut_short_is_replaced(small, ssh, tmp_path):
    url = f"ssh://{ssh.user}@127.0.0.1:{ssh.port}{tmp_path}/storage"
    small.configure(remote_at(url), f"['remote \"storage\"']\n    keyfile = {ssh.key}\n")
    small.push()
    place = next((tmp_path / "storage").rglob(small.oid("model.bin")[2:]))
    place.write_bytes(b"cut")
    (found,) = small.verify(repair=True).findings
    assert (found.state, found.repaired) == ("wrong size", True)
    assert place.read_bytes() == small.read("model.bin")
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    config = small.folder / ".dvc" / "config.local"
    config.write_text(config.read_text().replace("user_key", "host_key"))
    assert "wrong or missing credentials" in small.fieldguide("remote", "verify", status=2)
