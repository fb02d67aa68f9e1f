"""The one place that uses DVC's inner functions, checked with DVC 3.67.1.

DVC documents its commands and `dvc.api`. What they do not offer is here; `pyproject.toml` bounds
DVC to the versions that this module was checked with, and tests/results/test_dvc.py exercises it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from configparser import ConfigParser
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from urllib.parse import urlsplit

from fieldguide.core.errors import DvcError, RemoteError
from fieldguide.core.files import md5, write_bytes
from fieldguide.results.git import git

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo

# What `dvc exp run` imports, most of it late. A process that imports them ahead can be forked into
# one that runs DVC at once. A module that another version of DVC lacks does no harm.
MODULES = [
    "dulwich.porcelain",
    "dvc.cli.parser",
    "dvc.commands.experiments.run",
    "dvc.data_cloud",
    "dvc.repo.experiments.executor.local",
    "dvc.repo.experiments.queue.celery",
    "dvc.repo.experiments.queue.workspace",
    "dvc.repo.plots",
    "dvc.repo.reproduce",
    "dvc.stage.run",
    "dvc.utils.hydra",
    "dvc_data.index.checkout",
    "hydra._internal.config_loader_impl",
    "scmrepo.git.backend.pygit2.filter",
]
_SECRET = ("secret", "password", "passphrase", "token", "key", "connection_string", "auth_header")
_NO_SECRET = ("key_path", "keyfile", "sse_kms_key_id", "access_key_id", "oss_key_id")


def dvc(root: Path, *arguments: str) -> str:
    """Run `dvc` in `root` and return what it prints.

    Raises:
        DvcError: it fails; the message has DVC's own error.
    """
    done = subprocess.run(  # noqa: S603 - no shell, and arguments of our own
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        raise DvcError(f"dvc {arguments[0]} failed in {root}: {' '.join(errors)}")
    return done.stdout


def main(arguments: list[str]) -> int:
    """Run DVC's command line in this process, and return its exit status."""
    from dvc.cli import main  # noqa: PLC0415 - takes a second, and few processes need it

    return int(main(arguments))


def cache_folder(root: Path) -> Path:
    """Return the project's cache, which holds DVC's folders `files` and `runs`."""
    return Path(dvc(root, "cache", "dir").strip())


def write_local_config(clone: Path, project: Path, *, cache: str) -> None:
    """Write config.local of a clone: the project's own, with the cache of the clone.

    Remotes that the project names by a relative path get their whole path. Not by `dvc config`,
    which cannot write a path with letters beyond ASCII on every machine.

    Args:
        clone: its folder has .dvc.
        project: the folder of the original.
        cache: folder, relative to .dvc of the clone.
    """
    folder = (project / ".dvc").resolve()
    config = ConfigParser(interpolation=None, strict=False)
    config.optionxform = str  # type: ignore[assignment,method-assign]
    shared = ConfigParser(interpolation=None, strict=False)
    shared.read(clone / ".dvc" / "config", encoding="utf-8")
    config.read(folder / "config.local", encoding="utf-8")  # missing: nothing
    for source in (shared, config):
        for section in source.sections():
            url = source.get(section, "url", fallback="")
            if section.startswith("'remote") and url and "://" not in url:
                config.read_dict({section: {"url": str(folder / url)}})  # an absolute url stays
    config.read_dict({"cache": {"dir": cache}})
    with (clone / ".dvc" / "config.local").open("w", encoding="utf-8") as file:
        config.write(file)


def cached_file(cache: Path, md5: str) -> Path:
    """Return where a cache keeps the file, or the list of a folder's files, that has this hash."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def cached_dependencies(root: Path, stage: str) -> list[str]:
    """Return the paths of a stage's dependencies that DVC tracks, so that it can push them.

    A dependency may also lie in a folder that DVC tracks, or hold files that it tracks.
    """
    from dvc.repo import Repo  # noqa: PLC0415 - takes a second, and few processes need it

    with Repo(str(root)) as repo:
        tracked = {out.fs_path for out in repo.index.outs if out.use_cache}
        named = next(one for one in repo.index.stages if getattr(one, "name", None) == stage)
        deps = [Path(dep.fs_path) for dep in named.deps]
        return [
            out
            for out in tracked
            if any(dep.is_relative_to(out) or Path(out).is_relative_to(dep) for dep in deps)
        ]


def copy_runs(
    source: Path, target: Path, *, is_wanted: Callable[[Path], bool] | None = None
) -> None:
    """Copy the remembered runs of one cache to another one, which may have some of them already.

    A run is a file runs/<2>/<key>/<value>: what dvc.lock says of one stage. The key is a hash of
    the command, dependencies and params, the value a hash of the outputs too.

    Args:
        source: a cache folder.
        target: another one.
        is_wanted: tells whether to copy a run's file, which the target lacks; one that is not
            wanted is deleted from the source. Without it, every run is copied.
    """
    for file in (source / "runs").glob("*/*/*"):
        copy = target / file.relative_to(source)
        if copy.exists():
            continue
        if is_wanted and not is_wanted(file):
            file.unlink()
            with suppress(OSError):  # other runs have the same key
                file.parent.rmdir()  # DVC cannot read an empty folder of a key
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Not in the key's folder: DVC takes the latest file there, also half of one.
        partial = target / "runs" / f".{file.name}.partial"
        shutil.copy2(file, partial)  # with its time
        partial.replace(copy)


@dataclass(frozen=True)
class Scope:
    """The revisions to look into; without any, the workspace."""

    revs: Mapping[str, str] = field(default_factory=dict)  # names to show, by commit
    all_branches: bool = False
    all_tags: bool = False
    all_commits: bool = False
    all_experiments: bool = False


class TrackedOutput(NamedTuple):
    """An output that DVC caches, as dvc.lock or a .dvc file of one revision names it."""

    rev: str  # name of the revision; empty for the workspace
    path: str  # in the project
    md5: str  # that of a folder ends in .dir
    size: int | None  # bytes; of a folder all its files together
    remote: str | None  # None for the default one
    not_pushed: str | None  # the reason why `dvc push` leaves it out


class DvcProject:
    """A project as DVC sees it: its cache, its remotes and the outputs that it caches."""

    def __init__(self, root: Path) -> None:
        """Store the folder; the first use imports DVC, which takes a second.

        Args:
            root: the project's folder.
        """
        self._root = root

    def cached(self, md5sum: str) -> Path:
        """Return where DVC's cache keeps an object; it may be missing there.

        Args:
            md5sum: of a file, or of a folder's list of files, ending in ".dir".
        """
        return Path(self._repo.cache.local.oid_to_path(md5sum))

    def read(self, md5sum: str) -> bytes:
        """Return an object from the cache or the default remote; the cache keeps it.

        Args:
            md5sum: as in `cached`.

        Raises:
            RemoteError: neither has it, the remote cannot be asked, or sends other bytes.
        """
        cached, wanted = self.cached(md5sum), md5sum.removesuffix(".dir")
        if cached.is_file() and md5(data := cached.read_bytes()) == wanted:
            return data
        remote = self.remote(self.default_remote)
        data = remote.read(md5sum)
        if md5(data) != wanted:
            raise RemoteError(
                f"remote {remote.name}: {md5sum} is damaged there; `fieldguide remote verify "
                "--deep` says more"
            )
        write_bytes(cached, data)
        cached.chmod(0o444)  # as DVC does: a link to it must not be edited
        return data

    def remote(self, name: str) -> Remote:
        """Return a remote.

        Raises:
            RemoteError: there is none of that name, or its settings are wrong.
            DvcError: the folder is in no DVC project, or its config is wrong.
        """
        return Remote(self._repo, name)

    @property
    def default_remote(self) -> str:
        """Name of the default remote.

        Raises:
            RemoteError: none is set.
        """
        if name := self._repo.config["core"].get("remote"):
            return str(name)
        known = ", ".join(sorted(self._repo.config["remote"]))
        mend = (
            f"choose one of: {known}, with --remote or `dvc remote default NAME`"
            if known
            else "add one: `dvc remote add --default storage URL`"
        )
        raise RemoteError(f"no default remote in .dvc/config; {mend}")

    def outputs(self, scope: Scope) -> list[TrackedOutput]:
        """Return the outputs that DVC caches, of each revision.

        Raises:
            RemoteError: a revision cannot be read.
        """
        folder = self._root.resolve().relative_to(Path(self._repo.root_dir).resolve())
        revisions = asdict(scope) | {"revs": list(scope.revs), "workspace": scope == Scope()}
        rev, found = "workspace", []
        try:
            for name in self._repo.brancher(**revisions):
                rev, fs = name or rev, self._repo.fs
                label = scope.revs.get(name) or self._label(name)
                top = fs.join(self._repo.root_dir, *folder.parts)
                for out in self._repo.index.outs:
                    path = fs.relpath(out.fs_path, top)
                    if out.use_cache and out.is_in_repo and not path.startswith(".."):
                        found.append(_tracked(label, path, out))
        except Exception as err:  # DVC's, Git's and YAML's own have nothing in common
            raise RemoteError(f"{rev}: its dvc.yaml or .dvc files cannot be read ({err})") from err
        return found

    def _label(self, rev: str) -> str:
        """Return the name of a commit's experiment, branch or tag, or its first letters."""
        if not re.fullmatch("[0-9a-f]{40}", rev):
            return rev
        refs = git(self._root, "for-each-ref", f"--points-at={rev}", "--format=%(refname:lstrip=2)")
        return refs.split()[0].rpartition("/")[2] if refs else rev[:7]

    @cached_property
    def _repo(self) -> Repo:
        from dvc.exceptions import DvcException  # noqa: PLC0415
        from dvc.repo import Repo  # noqa: PLC0415

        try:
            return Repo(str(self._root))
        except DvcException as err:  # no DVC project, or wrong settings
            raise DvcError(f"{self._root.resolve()}: {err}") from err


def _tracked(rev: str, path: str, out: Output) -> TrackedOutput:
    reason = None
    if out.stage.is_repo_import:
        reason = "imported from another repository, which keeps it"
    elif not out.can_push:
        reason = "push: false"
    elif not out.hash_info:
        reason = "not made yet: no hash"
    elif out.hash_info.name != "md5":
        reason = "hash of DVC before 3.0: `dvc cache migrate --dvc-files`"
    md5sum = str(out.hash_info.value or "")
    return TrackedOutput(rev, path, md5sum, out.meta.size, out.remote or None, reason)


class Remote:
    """The objects of one DVC remote, as they lie there now and not as DVC remembers them."""

    def __init__(self, repo: Repo, name: str) -> None:
        """Connect to it."""
        self.name = name
        self._config = dict(repo.config["remote"].get(name.lower(), {}))
        self.verifies_pulls = bool(self._config.get("verify"))
        self.url = without_credentials(str(self._config.get("url", "")))
        with self._explained():
            self._objects = repo.cloud.get_remote_odb(name, "verify")
            self._fs = self._objects.fs

    def sizes(self, md5sums: Collection[str]) -> dict[str, int]:
        """Return the bytes of those objects that are there.

        Raises:
            RemoteError: it cannot be asked.
        """
        paths = [self._objects.oid_to_path(one) for one in md5sums]
        with self._explained():
            self._fs.fs.invalidate_cache()  # what was listed before a repair
            infos = self._fs.info(paths, return_exceptions=True)
            for info in infos:
                if isinstance(info, Exception) and not isinstance(info, FileNotFoundError):
                    raise info
            found = {
                one: int(info["size"])
                for one, info in zip(md5sums, infos, strict=True)
                if not isinstance(info, Exception)
            }
            if paths and not found:
                self._check_place()
        return found

    def read(self, md5sum: str) -> bytes:
        """Return an object's bytes.

        Raises:
            RemoteError: it is not there, or cannot be read.
        """
        with self._explained():
            try:
                return bytes(self._fs.cat_file(self._objects.oid_to_path(md5sum)))
            except FileNotFoundError as err:
                raise RemoteError(
                    f"remote {self.name} ({self.url}): {md5sum} is not there"
                ) from err

    def md5(self, md5sum: str) -> str:
        """Download an object and return the MD5 of its bytes.

        Raises:
            RemoteError: it cannot be read.
        """
        with self._explained(), self._fs.open(self._objects.oid_to_path(md5sum), "rb") as file:
            return stream_md5(file)

    def write(self, md5sum: str, file: Path) -> None:
        """Upload a file as an object, in place of what is there, whole or not at all.

        Raises:
            RemoteError: it cannot be written.
        """
        from dvc_objects.fs.utils import as_atomic  # noqa: PLC0415 - slow, as DVC is

        path = self._objects.oid_to_path(md5sum)
        with self._explained(), as_atomic(self._fs, path, create_parents=True) as partial:
            self._fs.put_file(str(file), partial)

    def forget_index(self) -> None:
        """Clear what DVC remembers of this remote, so that its next push and pull look."""
        from dvc_data.hashfile.db import get_index  # noqa: PLC0415

        with closing(get_index(self._objects)) as index:
            index.clear()

    def _check_place(self) -> None:
        """Raise an error if the bucket or folder is missing, which looks like an empty remote."""
        from dvc_objects.fs.base import ObjectFileSystem  # noqa: PLC0415

        place, what = self._fs.parent(self._fs.parent(self._objects.path)), "folder"
        if isinstance(self._fs, ObjectFileSystem):
            place, what = self._fs.parts(place)[0], "bucket"
        if not self._fs.exists(place):
            raise RemoteError(
                f"remote {self.name} ({self.url}): there is no {what} {place!r}; make it, or "
                f"mend the URL: `dvc remote modify {self.name} url URL`"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise any error as one line that names the remote and the remedy, without a secret."""
        try:
            yield
        except RemoteError:
            raise
        except Exception as err:  # noqa: BLE001 - the plug-ins' own have nothing in common
            text = " ".join(str(err).split()).removeprefix("config file error: ").rstrip(".")
            text = text or type(err).__name__
            for option, value in self._config.items():
                if option.endswith(_SECRET) and option not in _NO_SECRET and isinstance(value, str):
                    text = text.replace(value, "***")
            where = f"remote {self.name}" + (f" ({self.url})" if self.url else "")
            raise RemoteError(f"{where}: {text}; {_remedy(err, self.name)}") from None


def stream_md5(file: BinaryIO) -> str:
    """Return the MD5 of all bytes of an open file."""
    found = hashlib.md5(usedforsecurity=False)
    while chunk := file.read(1 << 20):
        found.update(chunk)
    return found.hexdigest()


def without_credentials(url: str) -> str:
    """Return an address without password, token and signature; the user of SSH stays."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    shown = f"{user.partition(':')[0]}@{host}" if at and parts.scheme == "ssh" else host
    return parts._replace(netloc=shown, query="", fragment="").geturl()


def _remedy(err: Exception, name: str) -> str:
    """Return what a user can do about an error of DVC or of a plug-in."""
    kinds = {kind.__name__ for kind in type(err).__mro__}
    if "RemoteNotFoundError" in kinds:
        return "`dvc remote list` shows those that there are"
    if kinds & {"RemoteMissingDepsError", "ImportError"}:
        return "install that plug-in"
    if kinds & {"ConfigError", "RemoteConfigError"}:
        return f"`dvc remote modify {name} ...` mends it"
    if kinds & {"PermissionError", "NoCredentialsError", "PermissionDenied", "AuthError"}:
        return (
            "wrong or missing credentials: set them with `dvc remote modify --local`, "
            "in the environment or in a profile"
        )
    return "is the server running, and can this machine reach it?"
