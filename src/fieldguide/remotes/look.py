"""Look for a remote's objects one by one, and upload again what is not right."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fieldguide.core.files import md5
from fieldguide.remotes.wanted import Key, Use
from fieldguide.results.storage import RemoteError, Storage, hash_of

if TYPE_CHECKING:
    from dvc.repo import Repo

State = Literal["missing", "wrong size", "damaged", "unreadable"]
Advance = Callable[[str, int, int], None]  # of what, how many are done, of how many
HASHED_AT_A_TIME = 4  # downloads; more of them only share the line


@dataclass
class Finding:
    """An object that the remote lacks, or has with other bytes.

    Attributes:
        uses: where the project needs it.
        repaired: whether it was uploaded again.
        note: what else there is to say, as why it was not.
    """

    key: Key
    state: State
    uses: list[Use]
    repaired: bool = False
    note: str = ""


@dataclass
class Looked:
    """What was found of one remote.

    Attributes:
        sizes: bytes on the remote by object.
        uses: where the project needs them, by object.
        members: the objects of each out.
        states: what is wrong, by object.
        notes: more about it, by object.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    uses: dict[str, list[Use]] = field(default_factory=lambda: defaultdict(list))
    members: dict[str, set[str]] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


class Look:
    """A look at one remote, with the local cache beside it."""

    def __init__(self, repo: Repo, storage: Storage, advance: Advance) -> None:
        from dvc.cachemgr import LEGACY_HASH_NAMES  # noqa: PLC0415 - slow, as DVC is

        self.storage = storage
        self.advance = advance
        legacy = storage.hash_name in LEGACY_HASH_NAMES
        self.cache = repo.cache.legacy if legacy else repo.cache.local

    def look(
        self, outs: dict[str, list[Use]], sizes: dict[str, int], *, deep: bool = False
    ) -> Looked:
        """Compare the outs' objects with those that are there.

        Args:
            outs: where they are used, by an out's hash.
            sizes: bytes of an out by its hash, as far as dvc.lock has them.
            deep: download every object and hash it.

        Raises:
            RemoteError: the remote cannot be listed or read.
        """
        found = Looked()
        for oid, uses in outs.items():
            found.uses[oid] += uses
        self.advance("Listing", 0, 1)
        found.sizes = self.storage.sizes(set(outs))
        folders = {oid: self._members(oid, found) for oid in outs if oid.endswith(".dir")}
        for oid, members in folders.items():
            for name, member in members:
                found.uses[member] += [use.inside(name) for use in outs[oid]]
        found.sizes |= self.storage.sizes(set(found.uses) - set(outs))
        self.advance("Listing", 1, 1)
        found.members = {
            oid: {oid, *(member for _, member in folders.get(oid, []))} for oid in outs
        }
        for oid in found.uses:
            if oid not in found.sizes:
                found.states[oid] = "missing"
            elif oid in sizes and oid not in folders and found.sizes[oid] != sizes[oid]:
                found.states[oid] = "wrong size"
        doubtful = self._doubtful(folders, sizes, found)
        whole = [oid for oid in found.sizes if oid not in folders and oid not in found.states]
        self._hash([oid for oid in whole if deep or oid in doubtful], found)
        return found

    def _members(self, oid: str, found: Looked) -> list[tuple[str, str]]:
        """Name and hash of each file of a folder; the list of them is always hashed."""
        data: bytes | None = None
        if oid in found.sizes:
            data = self.storage.read(oid)
            if md5(data) != oid.removesuffix(".dir"):
                found.states[oid] = "damaged"
                data = None
        if data is None and self.intact(oid):
            data = Path(self.cache.oid_to_path(oid)).read_bytes()
        if data is None:
            found.notes[oid] = "what lies in it is not known: the local cache has no list either"
            return []
        return [(one["relpath"], one["md5"]) for one in json.loads(data)]

    def _doubtful(
        self, folders: dict[str, list[tuple[str, str]]], sizes: dict[str, int], found: Looked
    ) -> set[str]:
        """Files of folders whose size is not what the local cache or dvc.lock lets expect."""
        doubtful = set()
        for oid, members in folders.items():
            there = {member for _, member in members if member in found.sizes}
            doubtful |= {
                one for one in there if self._local_size(one) not in (None, found.sizes[one])
            }
            complete = len(there) == len({member for _, member in members})
            total = sum(found.sizes[member] for _, member in members if member in there)
            if complete and oid in sizes and total != sizes[oid]:
                doubtful |= there
        return doubtful

    def _hash(self, oids: list[str], found: Looked) -> None:
        self.advance("Hashing", 0, len(oids))
        with ThreadPoolExecutor(HASHED_AT_A_TIME) as pool:
            for done, (oid, state) in enumerate(
                zip(oids, pool.map(self._hashed, oids), strict=True), start=1
            ):
                if state is not None:
                    found.states[oid] = state
                self.advance("Hashing", done, len(oids))

    def _hashed(self, oid: str) -> State | None:
        try:
            return None if self.storage.hash(oid) == oid else "damaged"
        except RemoteError:
            # Only this one, or has the server gone? The latter is raised here.
            return "unreadable" if oid in self.storage.sizes({oid}) else "missing"

    def repair(self, findings: Iterable[Finding]) -> None:
        """Upload what the local cache has intact; a folder's list after its files.

        Raises:
            RemoteError: the remote cannot be written.
        """
        ordered = sorted(findings, key=lambda one: one.key.oid.endswith(".dir"))
        self.advance("Uploading", 0, len(ordered))
        for done, one in enumerate(ordered, start=1):
            oid = one.key.oid
            if self.intact(oid):
                self.storage.write(self.cache.oid_to_path(oid), oid)
                one.repaired = self.storage.sizes({oid}).get(oid) == self._local_size(oid)
                one.note = "" if one.repaired else "uploaded, and not there with its size"
            else:
                missing = self._local_size(oid) is None
                one.note = "not in the local cache" if missing else "damaged in the local cache too"
            self.advance("Uploading", done, len(ordered))

    def damaged_here(self, oids: Iterable[str]) -> dict[str, Path]:
        """Files of the local cache whose bytes are not those of their names; DVC trusts them."""
        known = [oid for oid in sorted(oids) if self._local_size(oid) is not None]
        return {oid: Path(self.cache.oid_to_path(oid)) for oid in known if not self.intact(oid)}

    def intact(self, oid: str) -> bool:
        """Whether the local cache has an object, with the bytes of its name."""
        if self._local_size(oid) is None:
            return False
        path = self.cache.oid_to_path(oid)
        return hash_of(self.cache.fs, path, self.storage.hash_name) == oid.removesuffix(".dir")

    def _local_size(self, oid: str) -> int | None:
        try:
            return Path(self.cache.oid_to_path(oid)).stat().st_size
        except FileNotFoundError:
            return None
