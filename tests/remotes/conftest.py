"""A small project with a folder, a file and a remote of its own."""

import hashlib
import itertools
import shutil

import pytest
from dvc.repo import Repo
from here import fieldguide_here
from project import Project

from fieldguide.remotes.verify import verify

PHOTOS = {"ant.png": b"ant" * 500, "bee.png": b"bee" * 700, "twin.png": b"ant" * 500}
MODEL = bytes(range(256)) * 40


class Small(Project):
    """`photos/` (two of its three files are the same) and `model.bin`, both of DVC."""

    def push(self):
        with Repo(str(self.folder)) as repo:
            repo.push()

    def verify(self, **options):
        return verify(self.folder, **options)

    def remote_verify(self, *options, status=0):
        """Run the command in this process, and return its output."""
        done = fieldguide_here("remote", "verify", *options, cwd=self.folder)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def configure(self, text, secret=""):
        (self.folder / ".dvc" / "config").write_text(text)
        (self.folder / ".dvc" / "config.local").write_text(secret)

    def oid(self, name):
        """Hash of a file of the workspace, as DVC names it."""
        return hashlib.md5((self.folder / name).read_bytes()).hexdigest()

    def cached(self, oid):
        return self.folder / ".dvc" / "cache" / "files" / "md5" / oid[:2] / oid[2:]

    def list_of_photos(self):
        """Hash of the list of the folder's files."""
        text = (self.folder / "photos.dvc").read_text()
        return next(word for word in text.split() if word.endswith(".dir"))


@pytest.fixture(scope="session")
def committed(tmp_path_factory):
    """The project, with no remote yet."""
    project = Small(tmp_path_factory.mktemp("small") / "project")
    (project.folder / "photos").mkdir(parents=True)
    for name, data in PHOTOS.items():
        (project.folder / "photos" / name).write_bytes(data)
    (project.folder / "model.bin").write_bytes(MODEL)
    project.git("init", "--quiet", "--initial-branch=main")
    project.name_user()
    project.dvc("init", "--quiet")
    project.dvc("add", "--quiet", "photos", "model.bin")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "photos and model")
    return project


@pytest.fixture
def small(committed, tmp_path):
    """A copy of the project, whose remote `storage` is a folder beside it."""
    project = Small(tmp_path / "project")
    shutil.copytree(committed.folder, project.folder, symlinks=True)
    (tmp_path / "storage").mkdir()
    project.configure(
        f"[core]\nremote = storage\n['remote \"storage\"']\nurl = {tmp_path}/storage\n"
    )
    return project


class Bucket:
    """Objects of one project in an S3 bucket, by their hashes."""

    def __init__(self, s3, prefix):
        self.s3, self.prefix = s3, prefix

    def key(self, oid):
        return f"{self.prefix}/files/md5/{oid[:2]}/{oid[2:]}"

    def read(self, oid):
        return self.s3.read("remotes", self.key(oid))

    def write(self, oid, data):
        self.s3.write("remotes", self.key(oid), data)

    def delete(self, oid):
        self.s3.delete("remotes", self.key(oid))

    def damage(self, oid):
        """Flip one bit; the size stays."""
        data = bytearray(self.read(oid))
        data[0] ^= 1
        self.write(oid, bytes(data))


@pytest.fixture(scope="session")
def prefixes(s3):
    """URLs in a bucket: a folder of its own for each test."""
    url = s3.bucket("remotes")
    return (f"{url}/{number}" for number in itertools.count())


@pytest.fixture
def bucket(small, s3, prefixes):
    """The project's place in a bucket, where it is pushed to."""
    url = next(prefixes)
    small.configure(s3.remote(url), s3.keys_of_remote())
    small.push()
    return Bucket(s3, url.removeprefix("s3://remotes/"))
