"""What differs between a run and another one, besides its scores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from fieldguide.report.scores import NONE, show_size
from fieldguide.results.run import MODEL, PREPARED, Run

_HASH = 8  # characters shown


class Change(NamedTuple):
    """Texts; a dash where a side has none."""

    key: str
    before: str
    after: str


class Changes(NamedTuple):
    """By where they lie."""

    params: list[Change]
    data: list[Change]
    code: list[Change]  # and other files that stages read
    environment: list[Change]


def compare(run: Run, other: Run) -> Changes:
    """Return what differs, in this run's order."""
    return Changes(
        params=list(_pairs(other.params, run.params)),
        data=list(_pairs(_data(other), _data(run))),
        code=[
            Change(key, _short(before), _short(after))
            for key, before, after in _pairs(_code(other), _code(run))
        ],
        environment=list(_pairs(other.environment, run.environment)),
    )


def other_data(run: Run, other: Run) -> bool:
    """Whether the prepared photos differ, or those of one side are not known."""
    mine, theirs = run.outs.get(PREPARED), other.outs.get(PREPARED)
    return mine is None or theirs is None or mine.md5 != theirs.md5


def show_value(value: Any) -> str:
    """Return a param as YAML has it."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _pairs(before: dict[str, Any], after: dict[str, Any]) -> Iterable[Change]:
    for key in dict.fromkeys([*after, *before]):
        if before.get(key) != after.get(key):
            yield Change(key, show_value(before.get(key)), show_value(after.get(key)))


def _data(run: Run) -> dict[str, str]:
    """Facts of archive, photos and what was made of them."""
    found: dict[str, str] = {}
    if run.archives:
        found["archive"] = ", ".join(run.archives)
        found["archive, MD5"] = ", ".join(run.inputs.get(path, NONE) for path in run.archives)
    for path, label in ((PREPARED, "prepared photos, MD5"), (MODEL, "classifier, MD5")):
        if path in run.outs:
            found[label] = run.outs[path].md5.removesuffix(".dir")
    if MODEL in run.outs:
        found["classifier, size"] = show_size(run.outs[MODEL].size)
    if run.photos:
        found["classes"] = f"{len(run.photos):,}"
        totals = (f"{run.total(split):,} {split}" for split in ("train", "val", "test"))
        found["photos"] = ", ".join(totals)
    return found


def _code(run: Run) -> dict[str, str]:
    return {path: md5 for path, md5 in run.inputs.items() if path not in run.archives}


def _short(md5: str) -> str:
    return md5[:_HASH]
