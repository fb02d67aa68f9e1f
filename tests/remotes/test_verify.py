"""Verify remotes in every state: on an S3 server, and in folders."""

import hashlib
import shutil

import pytest
from project import remote_at

from fieldguide.core.errors import DvcError, RemoteError
from fieldguide.remotes.verify import verify
from fieldguide.results.dvc import Scope

pytestmark = pytest.mark.slow


STAGES = """
stages:
  make:
    cmd: for i in a b c d; do echo $i > $i; done
    outs:
      - a: {push: false}
      - b: {cache: false}
      - c: {remote: second}
      - d
  later:
    cmd: echo > e
    outs: [e]
"""


def told(report):
    """State, uses and repair of each finding."""
    return [(one.state, [str(use) for use in one.uses], one.repaired) for one in report.findings]


def make_writable(path):
    path.chmod(0o644)
    return path


def test_each_object_counts_once(small, bucket):
    report = small.verify(deep=True)
    assert report.complete
    # Two photos of three differ; with the folder's list and the model that is four objects.
    assert report.objects == 4
    shown = {str(out.use): (out.objects, out.wrong) for out in report.outputs}
    assert shown == {"photos": (3, 0), "model.bin": (1, 0)}
    photos = len(b"ant" * 500) + len(b"bee" * 700)
    listed = len(small.cached(small.list_of_photos()).read_bytes())
    assert report.size == photos + listed + 256 * 40


def test_an_object_that_dvc_calls_up_to_date_is_found_missing_and_repaired(small, bucket):
    ant = small.oid("photos/ant.png")
    bucket.delete(ant)
    assert "Everything is up to date" in small.dvc("push")
    output = small.fieldguide("remote", "verify", status=1)
    assert "photos     " in output
    assert "1 of 3 not right" in output
    assert f"{ant}  missing\n  photos/ant.png\n  photos/twin.png\n" in output
    output = small.remote_verify("--repair")
    assert "missing, uploaded again" in output
    assert bucket.read(ant) == b"ant" * 500
    assert small.verify(deep=True).complete


def test_dvc_pushes_missing_objects_again_because_its_index_is_cleared(small, bucket):
    bucket.delete(small.list_of_photos())
    bucket.delete(small.oid("model.bin"))
    bucket.delete(small.oid("photos/bee.png"))
    assert len(small.verify().findings) == 3
    assert "3 files pushed" in small.dvc("push")
    assert small.verify(deep=True).complete


def test_a_damaged_object_is_found_by_deep_and_replaced(small, bucket):
    model = small.oid("model.bin")
    bucket.damage(model)
    assert small.verify().complete  # its size is right
    assert told(small.verify(deep=True)) == [("damaged", ["model.bin"], False)]
    assert told(small.verify(deep=True, repair=True)) == [("damaged", ["model.bin"], True)]
    assert hashlib.md5(bucket.read(model)).hexdigest() == model


def test_a_truncated_object_is_found_without_a_local_copy(small, bucket):
    for name in ("model.bin", "photos/bee.png"):
        bucket.write(small.oid(name), bucket.read(small.oid(name))[:-1])
    shutil.rmtree(small.folder / ".dvc" / "cache")
    report = small.verify(repair=True)
    assert told(report) == [
        ("wrong size", ["model.bin"], False),
        ("damaged", ["photos/bee.png"], False),
    ]
    assert {one.note for one in report.findings} == {"not in the local cache"}
    assert not report.complete


def test_the_list_of_a_folder_is_always_hashed(small, bucket):
    listed = small.list_of_photos()
    bucket.damage(listed)
    bucket.delete(small.oid("photos/bee.png"))
    # The local cache still knows what lies in the folder.
    assert told(small.verify()) == [
        ("damaged", ["photos"], False),
        ("missing", ["photos/bee.png"], False),
    ]
    kept = small.cached(listed).read_bytes()
    make_writable(small.cached(listed)).write_bytes(b"[]")
    report = small.verify(repair=True)
    assert told(report) == [("damaged", ["photos"], False)]
    assert report.findings[0].note == "damaged in the local cache too"
    small.cached(listed).write_bytes(kept)
    assert small.verify(repair=True).complete
    assert bucket.read(listed) == kept


def test_a_damaged_local_file_is_never_uploaded(small, bucket):
    model = small.oid("model.bin")
    bucket.delete(model)
    cached = make_writable(small.cached(model))
    cached.unlink()
    cached.write_bytes(b"other" * 2048)
    cached.chmod(0o444)  # so DVC trusts it without hashing it
    report = small.verify(repair=True)
    assert told(report) == [("missing", ["model.bin"], False)]
    assert report.findings[0].note == "damaged in the local cache too"
    assert cached.read_bytes() == b"other" * 2048


def test_a_damaged_file_of_the_local_cache_is_named(small):
    small.push()
    cached = small.cached(small.oid("model.bin"))
    make_writable(cached).write_bytes(b"half")  # if it is a link, the workspace's file too
    cached.chmod(0o444)
    assert small.verify().complete
    output = small.remote_verify("--deep", status=1)
    assert f"damaged in the local cache: {cached}\n  model.bin\n" in output
    assert "dvc remote modify storage verify true" in output
    (small.folder / "model.bin").unlink()
    cached.unlink()
    small.dvc("pull")
    assert small.oid("model.bin") in str(cached).replace("/", "")
    with (small.folder / ".dvc" / "config").open("a") as config:
        config.write("verify = true\n")
    assert "verify true" not in small.remote_verify("--deep")


def test_outputs_that_dvc_would_not_push_are_left_out(small, tmp_path):
    second = tmp_path / "second"
    second.mkdir()
    config = remote_at(tmp_path / "storage")
    small.configure(f"{config}['remote \"second\"']\nurl = {second}\n")
    (small.folder / "dvc.yaml").write_text(STAGES)
    small.dvc("repro", "--quiet", "make")
    small.dvc("import", "--quiet", ".", "model.bin", "--out", "imported.bin")
    small.push()
    report = small.verify()
    assert report.complete
    left = {reason: [str(use) for use in uses] for reason, uses in report.left_out.items()}
    assert left == {
        "push: false": ["a"],
        "not made yet: no hash": ["e"],
        "imported from another repository, which keeps it": ["imported.bin"],
    }
    assert sorted(str(out.use) for out in report.outputs) == ["c", "d", "model.bin", "photos"]
    assert set(report.urls) == {"storage", "second"}
    (lost,) = [path for path in second.rglob("*") if path.is_file()]
    lost.unlink()
    assert told(small.verify(remote="storage")) == []
    assert told(small.verify()) == [("missing", ["c"], False)]
    assert told(small.verify(only=["photos"])) == []
    assert small.verify(repair=True).complete
    assert lost.read_bytes() == b"c\n"


def test_other_revisions(small, tmp_path):
    old = small.oid("model.bin")
    small.push()
    small.git("tag", "first")
    (small.folder / "model.bin").unlink()
    (small.folder / "model.bin").write_bytes(b"newer")
    small.dvc("add", "--quiet", "model.bin")
    small.push()
    small.git("commit", "--quiet", "--all", "--message", "newer model")
    (tmp_path / "storage" / "files" / "md5" / old[:2] / old[2:]).unlink()
    assert small.verify().complete
    missing = [("missing", ["model.bin (first)"], False)]
    assert told(small.verify(scope=Scope(all_tags=True))) == missing
    output = small.remote_verify("--rev", "first", "--rev", "main", status=1)
    assert "model.bin (first)        1      0.00 MB  1 of 1 not right\n" in output
    assert "model.bin (main)         1      0.00 MB  ok\n" in output
    assert f"{old}  missing\n  model.bin (first)\n" in output
    output = small.remote_verify("--rev", "none", status=2)
    assert "none: no such stage, version, Git revision or experiment" in output


def test_hashes_of_dvc_before_3_are_left_out(small):
    (small.folder / "old.txt.dvc").write_text(f"outs:\n- md5: {'a' * 32}\n  path: old.txt\n")
    small.push()
    output = small.remote_verify()
    assert "(hash of DVC before 3.0: `dvc cache migrate --dvc-files`): old.txt\n" in output


def test_a_protected_object_in_a_folder_is_replaced_as_a_whole(small, tmp_path):
    small.push()
    model = small.oid("model.bin")
    place = tmp_path / "storage" / "files" / "md5" / model[:2] / model[2:]
    make_writable(place).write_bytes(b"cut")
    place.chmod(0o444)
    assert told(small.verify(repair=True)) == [("wrong size", ["model.bin"], True)]
    assert place.read_bytes() == (small.folder / "model.bin").read_bytes()
    assert [path.name for path in place.parent.iterdir()] == [place.name]


WRONG = {  # what is replaced in the configuration, and the error and the remedy that it brings
    "a wrong secret": (
        ("test-secret-7f31", "another-secret-55"),
        "Forbidden",
        "`dvc remote modify --local`",
    ),
    "an unknown key": (("TESTKEY", "NOBODY"), "Forbidden", "`dvc remote modify --local`"),
    "no bucket": (("s3://", "s3://no-"), "there is no bucket 'no-remotes'", "modify storage url"),
    "no server": (("127.0.0.1", "127.0.0.2"), "Could not connect", "is the server running"),
    "no remote": (("remote = storage", ""), "no default remote", "choose one of: storage"),
    "no URL": (("url =", "profile ="), "expected 'url'", "remote"),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_error_names_its_remedy(small, bucket, what, monkeypatch):
    (old, new), error, remedy = WRONG[what]
    for name in ("config", "config.local"):
        path = small.folder / ".dvc" / name
        path.write_text(path.read_text().replace(old, new))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises((DvcError, RemoteError), match=error) as caught:
        small.verify()
    message = str(caught.value)
    assert remedy in message
    assert "\n" not in message
    assert "secret-" not in message


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("azure://x/y", "requires 'dvc-azure' to be installed; install that plug-in"),
        ("/nowhere/at/all", "there is no folder '/nowhere/at/all'; make it"),
        ("ssh://me:hunter2@127.0.0.1:1/x", r"ssh://me@127\.0\.0\.1:1/x"),
    ],
)
def test_errors_of_other_kinds_of_remotes(small, url, message):
    small.configure(remote_at(url))
    with pytest.raises(RemoteError, match=message) as caught:
        small.verify()
    assert "hunter2" not in str(caught.value)


def test_what_cannot_be_checked_ends_with_status_2(small, tmp_path):
    output = small.fieldguide("remote", "verify", "--remote", "elsewhere", status=2)
    assert output.count("\n") == 1
    assert "remote elsewhere: remote 'elsewhere' doesn't exist; `dvc remote list`" in output
    (small.folder / "code").mkdir()
    for folder, error in (
        (tmp_path, "not inside of a DVC repository"),
        (small.folder / "code", "no output of it"),
    ):
        with pytest.raises((DvcError, RemoteError), match=error):
            verify(folder)


def test_credentials_may_be_in_the_environment(small, bucket, s3):
    (small.folder / ".dvc" / "config.local").unlink()
    small.env |= {"AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret}
    assert "all there" in small.fieldguide("remote", "verify")
