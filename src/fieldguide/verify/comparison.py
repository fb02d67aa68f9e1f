"""Compare a rebuilt project with the revision: every input and output that dvc.lock names."""

from __future__ import annotations

import json
from dataclasses import dataclass

from fieldguide.core.files import md5
from fieldguide.results.results import Lock, Results, known, need

_SETTINGS = "params and commands"


@dataclass(frozen=True)
class Row:
    """A file or folder that dvc.lock names."""

    path: str
    stage: str  # the first one that reads or writes it
    is_output: bool
    committed: str  # MD5; empty if dvc.lock does not name it
    rebuilt: str  # MD5; empty if no stage reads or writes it now

    @property
    def is_same(self) -> bool:
        """Whether both are the same bytes."""
        return self.committed == self.rebuilt


def compare(committed: Results, rebuilt: Results) -> list[Row]:
    """Compare the two locks, and files in Git with the lock; the order is that of the stages.

    Raises:
        RevisionError: the revision has no dvc.lock.
    """
    before, after = need(committed.lock), need(rebuilt.lock)
    rows: dict[str, Row] = {}
    for stage in before.deps:
        for path, found in before.deps[stage].items():
            if path not in before.outputs and path not in rows:
                now = after.deps.get(stage, {}).get(path, "")
                rows[path] = Row(path, stage, False, found, now)
        for path, out in before.outputs.items():
            if out.stage == stage:
                now = after.outputs[path].md5 if path in after.outputs else ""
                rows[path] = Row(path, stage, True, _in_git(committed, path) or out.md5, now)
    for path, out in after.outputs.items():  # of stages that dvc.lock lacks
        if path not in rows:
            rows[path] = Row(path, out.stage, True, "", out.md5)
    rows[_SETTINGS] = Row(_SETTINGS, "all", False, _settings(committed), _settings(rebuilt))
    return list(rows.values())


def cause(different: list[Row], committed: Results, rebuilt: Results) -> str:
    """Return the likely cause of the first of some rows that differ, in one sentence."""
    inputs = [row.path for row in different if not row.is_output and row.path != _SETTINGS]
    if inputs:
        verb = "is not what" if len(inputs) == 1 else "are not what"
        return f"{', '.join(inputs)}: {verb} dvc.lock names; run `dvc repro` and commit the results"
    before, after = need(committed.lock), need(rebuilt.lock)
    every = sorted({*before.params, *after.params})
    keys = [key for key in every if before.params.get(key) != after.params.get(key)]
    if keys:
        return f"params.yaml: {', '.join(keys)} changed without `dvc repro`"
    if any(row.path == _SETTINGS for row in different):
        return "dvc.yaml: the command of a stage changed without `dvc repro`"
    if not different[0].committed:
        return f"dvc.lock lacks the stage {different[0].stage}; run `dvc repro` and commit"
    return _environment(committed, rebuilt) or _edited(different[0], before)


def _environment(committed: Results, rebuilt: Results) -> str:
    """Return what the two trainings were made with, if it differs."""
    before, after = known(committed.environment, {}), known(rebuilt.environment, {})
    found = [
        f"{key} {before.get(key, 'unknown')}, here {after.get(key, 'unknown')}"
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]
    return f"made with another {'; '.join(found)}" if before and found else ""


def _edited(row: Row, lock: Lock) -> str:
    if row.committed != lock.outputs[row.path].md5:
        return f"{row.path}: the file in Git is not the one that dvc.lock names"
    return (
        f"code, params and versions are the same, so {row.path} was changed by hand, or a "
        "processor computes differently (docs/reproducibility.md)"
    )


def _settings(results: Results) -> str:
    """Return a hash of the params and commands that dvc.lock names."""
    params = need(results.lock).params
    stages = results.revision.read_yaml("dvc.lock")["stages"]
    commands = {name: stage.get("cmd") for name, stage in stages.items()}
    return md5(json.dumps([params, commands], sort_keys=True).encode())


def _in_git(results: Results, path: str) -> str | None:
    """Return the MD5 of an output that Git keeps; None if DVC keeps it."""
    data = results.revision.read(path)
    return None if data is None else md5(data)
