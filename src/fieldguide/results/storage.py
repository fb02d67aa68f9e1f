"""One remote's objects: listed, read and written through DVC's own filesystems."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fieldguide.core.errors import RemoteError

if TYPE_CHECKING:
    from dvc.repo import Repo

SECRET = ("secret", "password", "passphrase", "token", "key", "connection_string", "auth_header")
NO_SECRET = ("key_path", "keyfile", "sse_kms_key_id", "access_key_id", "oss_key_id")


class Storage:
    """What lies on a remote under one kind of hash."""

    def __init__(self, repo: Repo, name: str, hash_name: str) -> None:
        self.name = name
        self.hash_name = hash_name
        self.config = dict(repo.config["remote"].get(name.lower(), {}))
        self.verifies_pulls = bool(self.config.get("verify"))
        self.url = without_credentials(str(self.config.get("url", "")))
        with self._explained():
            self._base = repo.cloud.get_remote(name).path
            self.odb = repo.cloud.get_remote_odb(name, "verify", hash_name=hash_name)
            self.fs = self.odb.fs

    def sizes(self, oids: set[str]) -> dict[str, int]:
        """Return the bytes of those objects that are there, as the storage lists them now.

        Raises:
            RemoteError: it cannot be listed.
        """
        with self._explained():
            self.fs.fs.invalidate_cache()  # a listing from before a repair
            if not self.fs.CAN_TRAVERSE:
                return self._asked_one_by_one(sorted(oids))
            self._refuse_missing_base()
            found: dict[str, int] = {}
            folders = sorted({oid[:2] for oid in oids})
            with ThreadPoolExecutor(self.fs.jobs) as pool:
                for listed in pool.map(self._list, folders):
                    found |= listed
        return {oid: found[oid] for oid in oids & found.keys()}

    def _list(self, prefix: str) -> dict[str, int]:
        try:
            infos = self.fs.fs.ls(self.fs.join(self.odb.path, prefix), detail=True)
        except FileNotFoundError:
            return {}
        return {
            prefix + self.fs.name(info["name"]): int(info["size"])
            for info in infos
            if info["type"] == "file"
        }

    def _asked_one_by_one(self, oids: list[str]) -> dict[str, int]:
        paths = [self.odb.oid_to_path(oid) for oid in oids]
        infos = self.fs.info(paths, return_exceptions=True)
        for info in infos:
            if isinstance(info, Exception) and not isinstance(info, FileNotFoundError):
                raise info
        if all(isinstance(info, Exception) for info in infos):
            # A web server that does not answer is "not found" to `info`, and not to this.
            with suppress(FileNotFoundError):
                self.fs.fs.cat_file(paths[0], start=0, end=1)
        return {
            oid: int(info["size"])
            for oid, info in zip(oids, infos, strict=True)
            if not isinstance(info, Exception)
        }

    def _refuse_missing_base(self) -> None:
        """An empty listing may mean an empty remote, or a bucket or folder that is not there."""
        from dvc_objects.fs.base import ObjectFileSystem  # noqa: PLC0415 - slow, as DVC is

        if isinstance(self.fs, ObjectFileSystem):
            base, what = self.fs.parts(self._base)[0], "bucket"
        else:
            base, what = self._base, "folder"
        try:
            self.fs.fs.ls(self.odb.path, detail=False)
        except FileNotFoundError as err:
            if not self.fs.fs.exists(base):
                raise RemoteError(
                    f"remote {self.name} ({self.url}): there is no {what} {base!r}; make it, or "
                    f"mend the URL: `dvc remote modify {self.name} url URL`"
                ) from err

    def read(self, oid: str) -> bytes:
        """Return an object's bytes.

        Raises:
            RemoteError: it is not there, or cannot be read.
        """
        with self._explained():
            try:
                return bytes(self.fs.cat_file(self.odb.oid_to_path(oid)))
            except FileNotFoundError as err:
                raise RemoteError(f"remote {self.name} ({self.url}): {oid} is not there") from err

    def hash(self, oid: str) -> str:
        """Download an object and return the hash of what came.

        Raises:
            RemoteError: it cannot be read.
        """
        with self._explained():
            return hash_of(self.fs, self.odb.oid_to_path(oid), self.hash_name)

    def write(self, file: str, oid: str) -> None:
        """Upload a file as an object, in place of what is there, whole or not at all.

        Raises:
            RemoteError: it cannot be written.
        """
        from dvc_objects.fs.base import ObjectFileSystem  # noqa: PLC0415 - as above

        path = self.odb.oid_to_path(oid)
        with self._explained():
            if isinstance(self.fs, ObjectFileSystem) or not self.fs.CAN_TRAVERSE:
                self.fs.put_file(file, path)  # a store makes it appear when it is whole
                return
            # A folder or server shows a file while it grows: written aside, then renamed.
            self.fs.makedirs(self.fs.parent(path))
            aside = f"{path}.partial"
            self.fs.put_file(file, aside)
            self.fs.mv(aside, path)

    def forget_index(self) -> None:
        """Clear what DVC remembers of this remote, so that its next push and pull look."""
        from dvc_data.hashfile.db import get_index  # noqa: PLC0415

        with closing(get_index(self.odb)) as index:
            index.clear()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say in one line which remote failed and what to mend; never a secret."""
        try:
            yield
        except RemoteError:
            raise
        except Exception as err:  # noqa: BLE001 - the plug-ins' own have nothing in common
            text = " ".join(str(err).split()).removeprefix("config file error: ").rstrip(".")
            text = text or type(err).__name__
            for option, value in self.config.items():
                if option.endswith(SECRET) and option not in NO_SECRET and isinstance(value, str):
                    text = text.replace(value, "***")
            where = f"remote {self.name}" + (f" ({self.url})" if self.url else "")
            raise RemoteError(f"{where}: {text}; {_mend(err, self.name)}") from None


def hash_of(fs: Any, path: str, hash_name: str) -> str:
    """Return DVC's hash of a file's bytes, never from its memory of earlier hashes."""
    from dvc_data.hashfile.hash import fobj_md5  # noqa: PLC0415 - as above

    with fs.open(path, "rb") as file:
        return str(fobj_md5(file, name=hash_name))


def without_credentials(url: str) -> str:
    """Return an address as it may be shown: who logs in by SSH stays, tokens and signatures go."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    shown = f"{user.partition(':')[0]}@{host}" if at and parts.scheme == "ssh" else host
    return parts._replace(netloc=shown, query="", fragment="").geturl()


def _mend(err: Exception, name: str) -> str:
    """What a user does about it."""
    kinds = {kind.__name__ for kind in type(err).__mro__}
    if "RemoteNotFoundError" in kinds:
        return "`dvc remote list` shows those that there are"
    if kinds & {"RemoteMissingDepsError", "ImportError"}:
        return "install that plug-in"
    if "ConfigError" in kinds or "RemoteConfigError" in kinds:
        return f"`dvc remote modify {name} ...` mends it"
    if kinds & {"PermissionError", "NoCredentialsError", "PermissionDenied", "AuthError"}:
        return (
            "wrong or missing credentials: set them with `dvc remote modify --local`, "
            "in the environment or in a profile"
        )
    return "is the server running, and can this machine reach it?"
