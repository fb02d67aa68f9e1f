"""Made-up experiments in a real Git repository, as `dvc exp run` would leave them.

`git fast-import` writes a thousand in a second.
"""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
START = 1_760_000_000  # seconds since 1970


@dataclass
class Experiment:
    """What one trial writes."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)  # as model.activation; the changed ones
    best: dict[str, Any] | None = None  # as val_acc
    created: int = START
    seconds: float | None = 60.0
    curves: dict[str, list[float]] = field(default_factory=dict)  # as val/acc
    extra: dict[str, str] = field(default_factory=dict)  # path: text


def write_experiments(folder: Path, experiments: Iterable[Experiment]) -> str:
    """Make a repository with one commit and experiments of it; return that commit."""
    _git(folder, b"", "init", "--quiet", "--initial-branch=main")
    first = {"params.yaml": PARAMS.read_text(encoding="utf-8")}
    stream = io.BytesIO()
    _commit(stream, "refs/heads/main", first, created=START)
    _git(folder, stream.getvalue(), "fast-import", "--quiet")
    base = _git(folder, b"", "rev-parse", "refs/heads/main").decode().strip()
    add_experiments(folder, experiments, base)
    return base


def add_experiments(folder: Path, experiments: Iterable[Experiment], base: str) -> None:
    """Write experiments of a commit."""
    stream = io.BytesIO()
    for one in experiments:
        ref = f"refs/exps/{base[:2]}/{base[2:]}/{one.name}"
        _commit(stream, ref, _files(one), created=one.created, parent=base)
    _git(folder, stream.getvalue(), "fast-import", "--quiet")


def _files(one: Experiment) -> dict[str, str]:
    metrics: dict[str, Any] = {"step": 1}
    if one.best is not None:
        metrics["best"] = one.best
    files = {
        "params.yaml": _params(one.params),
        "metrics/train/metrics.json": json.dumps(metrics, indent=4),
    }
    if one.seconds is not None:
        timing = {"prepare": {"seconds": 2.0}, "train": {"seconds": one.seconds}}
        files["metrics/timing.json"] = json.dumps(timing, indent=2) + "\n"
    if one.curves:
        header = ",".join(["epoch", *(name.replace("/", "_") for name in one.curves)])
        lines = [
            ",".join([str(epoch), *(f"{value:.6f}" for value in row)])
            for epoch, row in enumerate(zip(*one.curves.values(), strict=True), start=1)
        ]
        files["plots/curves.csv"] = "\n".join([header, *lines]) + "\n"
    return files | one.extra


def _params(changes: dict[str, Any]) -> str:
    """Return the project's params.yaml, with its comments, and with other values."""
    section, lines, left = "", [], dict(changes)
    for line in PARAMS.read_text(encoding="utf-8").splitlines():
        name = line.split(":")[0]
        if line and line[0].isalpha():
            section = name
        key = f"{section}.{name.strip()}"
        if key in left:
            # JSON is YAML: a text stays a text.
            lines.append(f"{name}: {json.dumps(left.pop(key))}  # changed")
        else:
            lines.append(line)
    assert not left, f"params.yaml has no {', '.join(left)}"
    return "\n".join(lines) + "\n"


def _commit(
    stream: io.BytesIO, ref: str, files: dict[str, str], *, created: int, parent: str | None = None
) -> None:
    stream.write(f"commit {ref}\ncommitter test <test@localhost> {created} +0000\n".encode())
    stream.write(b"data 0\n")
    if parent is not None:
        stream.write(f"from {parent}\n".encode())
    for path, text in files.items():
        data = text.encode()
        stream.write(f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
    stream.write(b"\n")


def _git(folder: Path, text: bytes, *arguments: str) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["git", *arguments], cwd=folder, input=text, capture_output=True, check=True
    )
    return done.stdout
