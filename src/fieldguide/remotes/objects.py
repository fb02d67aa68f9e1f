"""Compare the objects that the project needs with those of one remote, and upload them again.

An object is a stored file, named by its MD5: a file, or a folder's list of files. An output is a
file or folder that DVC tracks, its members are its objects, and the uses of an object are the paths
and revisions that need it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fieldguide.core.errors import RemoteError
from fieldguide.core.files import md5
from fieldguide.results.dvc import DvcProject, Remote, TrackedOutput, stream_md5

State = Literal["missing", "wrong size", "damaged", "unreadable"]
Advance = Callable[[str, int, int], None]  # name of the step, objects done, objects in all
_DOWNLOADS = 4  # at a time; more of them only share the line


class Use(NamedTuple):
    """A file or folder of the project that needs an object."""

    path: str
    rev: str  # empty for the workspace

    def __str__(self) -> str:
        return f"{self.path} ({self.rev})" if self.rev else self.path


@dataclass
class Finding:
    """An object that is missing on a remote, or has other bytes there."""

    md5: str
    state: State
    uses: list[Use]
    note: str = ""  # what else there is to say, as why it was not repaired
    repaired: bool = False  # it was uploaded again


class RemoteObjects:
    """The objects of some outputs on one remote.

    Attributes:
        outputs: their uses, by MD5.
        uses: where the project needs each object.
        folders: MD5 of each file of an output that is a folder, by its path in that folder.
        sizes: bytes of the objects that the remote has.
        findings: what is wrong, by MD5.
    """

    def __init__(
        self,
        project: DvcProject,
        remote: Remote,
        outputs: Collection[TrackedOutput],
        advance: Advance,
    ) -> None:
        """Store the arguments; `compare` asks the remote."""
        self._project, self._remote, self._advance = project, remote, advance
        self.outputs: dict[str, list[Use]] = defaultdict(list)
        for out in outputs:
            self.outputs[out.md5].append(Use(out.path, out.rev))
        self._expected = {out.md5: out.size for out in outputs}
        self.uses: dict[str, list[Use]] = defaultdict(list)
        self.folders: dict[str, dict[str, str]] = {}
        self.sizes: dict[str, int] = {}
        self.findings: dict[str, Finding] = {}

    def members(self, output: str) -> set[str]:
        """Return the objects of an output; a folder's list of files is one of them."""
        return {output, *self.folders.get(output, {}).values()}

    def compare(self, *, deep: bool) -> None:
        """Find what is missing or damaged.

        Args:
            deep: download and hash every object; else only those whose size is unexpected.

        Raises:
            RemoteError: the remote cannot be asked.
        """
        self._advance("Listing", 0, 1)
        self.sizes = self._remote.sizes(set(self.outputs))
        for output, uses in self.outputs.items():
            self.uses[output] += uses
            if output.endswith(".dir"):
                self.folders[output] = self._read_list(output)
            for path, file in self.folders.get(output, {}).items():
                self.uses[file] += [Use(f"{use.path}/{path}", use.rev) for use in uses]
        self.sizes |= self._remote.sizes(set(self.uses) - set(self.outputs))
        self._advance("Listing", 1, 1)
        for one in self.uses:
            if one not in self.sizes:
                self._report(one, "missing")
            elif one not in self.folders and self._expected.get(one) not in (None, self.sizes[one]):
                self._report(one, "wrong size")
        whole = [one for one in self.sizes if one not in self.folders and one not in self.findings]
        doubtful = self._doubtful()
        self._hash(whole if deep else [one for one in whole if one in doubtful])

    def repair(self) -> None:
        """Upload what the local cache has intact; a folder's list after its files.

        Raises:
            RemoteError: the remote cannot be written.
        """
        ordered = sorted(self.findings.values(), key=lambda one: one.md5.endswith(".dir"))
        for done, one in enumerate(ordered):
            self._advance("Uploading", done, len(ordered))
            cached = self._project.cached(one.md5)
            if self._intact(one.md5):
                self._remote.write(one.md5, cached)
                one.repaired = self._remote.sizes({one.md5}).get(one.md5) == cached.stat().st_size
                one.note = "" if one.repaired else "uploaded, and not there with its size"
            elif cached.is_file():
                one.note = "damaged in the local cache too"
            else:
                one.note = "not in the local cache"

    def damaged_here(self) -> dict[Path, list[Use]]:
        """Return the files of the local cache that do not have the bytes of their hash."""
        return {
            cached: uses
            for one, uses in self.uses.items()
            if (cached := self._project.cached(one)).is_file() and not self._intact(one)
        }

    def _report(self, one: str, state: State, note: str = "") -> None:
        self.findings.setdefault(one, Finding(one, state, self.uses[one], note))

    def _read_list(self, folder: str) -> dict[str, str]:
        """Read a folder's list of files from the remote, where it is always hashed."""
        data = self._remote.read(folder) if folder in self.sizes else None
        if data is None or md5(data) != folder.removesuffix(".dir"):
            known = self._intact(folder)
            note = "" if known else "its files are not known: the local cache has no list either"
            self._report(folder, "missing" if data is None else "damaged", note)
            data = self._project.cached(folder).read_bytes() if known else b"[]"
        return {row["relpath"]: row["md5"] for row in json.loads(data)}

    def _doubtful(self) -> set[str]:
        """Return the files of folders whose size differs from the local cache's or dvc.lock's."""
        found: set[str] = set()
        for folder, files in self.folders.items():
            there = {file for file in files.values() if file in self.sizes}
            for one in there:
                cached = self._project.cached(one)
                if cached.is_file() and cached.stat().st_size != self.sizes[one]:
                    found.add(one)
            if there == set(files.values()):
                total = sum(self.sizes[file] for file in files.values())
                found |= there if self._expected[folder] not in (None, total) else set()
        return found

    def _hash(self, objects: Collection[str]) -> None:
        self._advance("Hashing", 0, len(objects))
        with ThreadPoolExecutor(_DOWNLOADS) as pool:
            states = pool.map(self._state, objects)
            for done, (one, state) in enumerate(zip(objects, states, strict=True), start=1):
                if state is not None:
                    self._report(one, state)
                self._advance("Hashing", done, len(objects))

    def _state(self, one: str) -> State | None:
        try:
            return None if self._remote.md5(one) == one else "damaged"
        except RemoteError:
            # Only this one, or has the server gone? The latter raises an error here.
            return "unreadable" if self._remote.sizes({one}) else "missing"

    def _intact(self, one: str) -> bool:
        """Return whether the local cache has an object, with the bytes of its hash."""
        cached = self._project.cached(one)
        if not cached.is_file():
            return False
        with cached.open("rb") as file:
            return stream_md5(file) == one.removesuffix(".dir")
