"""What differs between two runs, besides their scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fieldguide.core.store import SPLITS
from fieldguide.report.metric_rows import NONE, show_value
from fieldguide.results.paths import MODEL, PREPARED
from fieldguide.results.results import Results, known

_CODE = ("src/", "stages/")


class Change(NamedTuple):
    """One difference, as texts; a dash if a side has no value."""

    key: str
    before: str
    after: str


class Changes(NamedTuple):
    """Differences by kind."""

    params: list[Change]
    data: list[Change]  # archive, photos, classifier, and other files that stages read
    code: list[Change]  # that stages use; MD5
    environment: list[Change]


def compare(run: Results, other: Results) -> Changes:
    """Return what differs, in the order of `run`."""
    return Changes(
        params=_differences(known(other.params, {}), known(run.params, {})),
        data=_differences(data_facts(other), data_facts(run)),
        code=_differences(_code(other), _code(run)),
        environment=_differences(known(other.environment, {}), known(run.environment, {})),
    )


def same_photos(run: Results, other: Results) -> bool:
    """Return whether both runs are known to have the same prepared photos."""
    mine, theirs = run.outputs.get(PREPARED), other.outputs.get(PREPARED)
    return mine is not None and theirs is not None and mine.md5 == theirs.md5


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    return [
        Change(key, show_value(before.get(key)), show_value(after.get(key)))
        for key in dict.fromkeys([*after, *before])
        if before.get(key) != after.get(key)
    ]


def data_facts(run: Results) -> dict[str, str]:
    """Return hashes and counts of everything but code that a run was made from and made."""
    found = {}
    if run.archives:
        found["archive"] = ", ".join(run.archives)
        found["archive, MD5"] = ", ".join(run.inputs.get(path, NONE) for path in run.archives)
    for path, label in ((PREPARED, "prepared photos, MD5"), (MODEL, "classifier, MD5")):
        if path in run.outputs:
            found[label] = run.outputs[path].md5.removesuffix(".dir")
    if photos := known(run.photos, {}):
        totals = zip(SPLITS, map(sum, zip(*photos.values(), strict=True)), strict=True)
        found["photos"] = ", ".join(f"{total:,} {split}" for split, total in totals)
    others = {path: md5 for path, md5 in run.inputs.items() if not path.startswith(_CODE)}
    return found | {path: md5 for path, md5 in others.items() if path not in run.archives}


def _code(run: Results) -> dict[str, str]:
    """Return the first characters of the MD5 of each file and folder of code."""
    return {path: md5[:8] for path, md5 in run.inputs.items() if path.startswith(_CODE)}
