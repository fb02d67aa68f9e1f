"""Read and write benchmarks/results.json: every repeat of every row, and its machine."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import math
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contender import ROOT, cores
from side_by_side import Row

FILE = ROOT / "benchmarks" / "results.json"
LIBRARIES = ("torch", "torchvision", "dvc", "numpy", "pillow")


@dataclass(frozen=True)
class Machine:
    """Where and when a row was measured.

    Attributes:
        cpu: name of the processor.
        cores: number of cores that the benchmark may use.
        gpu: name of the GPU; None without one.
        date: ISO 8601.
        commit: short hash; ends in + if measured files differ from the commit.
        full: True for `make bench-full`.
        python: version.
        libraries: name -> version.
    """

    cpu: str
    cores: int
    gpu: str | None
    date: str
    commit: str
    full: bool
    python: str
    libraries: dict[str, str]

    def describe(self) -> str:
        """Return one line for the table's legend."""
        gpu = f", {self.gpu}" if self.gpu else ""
        kind = "full" if self.full else "quick"
        return (
            f"{self.cores} cores of an {self.cpu}{gpu}, {self.date}, commit {self.commit}, {kind}"
        )


@dataclass(frozen=True)
class Result:
    """A row with the module and the machine that measured it."""

    module: str
    row: Row
    machine: Machine


def this_machine(*, full: bool) -> Machine:
    """Describe this machine and today's date."""
    return Machine(
        cpu=_cpu(),
        cores=cores(),
        gpu=_gpu(),
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        commit=_commit(),
        full=full,
        python=platform.python_version(),
        libraries={name: importlib.metadata.version(name) for name in LIBRARIES},
    )


def load(file: Path = FILE) -> list[Result]:
    """Read all results; return an empty list if there is no file."""
    if not file.exists():
        return []
    return [
        Result(one["module"], row_of(one["row"]), Machine(**one["machine"]))
        for one in json.loads(file.read_text(encoding="utf-8"))
    ]


def save(results: Iterable[Result], file: Path = FILE) -> None:
    """Write all results."""
    from fieldguide.core.files import write_json

    write_json(file, [_plain(asdict(result)) for result in results])


def merge(old: Iterable[Result], new: Iterable[Result], order: Iterable[str]) -> list[Result]:
    """Replace the rows of the modules that were measured again; sort by the order of modules."""
    new = list(new)
    again = {one.module for one in new}
    kept = [one for one in old if one.module not in again]
    places = {name: place for place, name in enumerate(order)}
    return sorted([*kept, *new], key=lambda one: places.get(one.module, len(places)))


def row_of(raw: dict[str, Any]) -> Row:
    """Return a row from what JSON has of it."""
    measured = {
        name: [math.inf if value is None else value for value in values]
        for name, values in raw["measured"].items()
    }
    return Row(**{**raw, "measured": measured})


def _plain(value: Any) -> Any:
    """Round to 6 digits; replace infinity, the seconds of a target never reached, by None."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return None if math.isinf(value) else float(f"{value:.6g}")
    return value


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _commit() -> str:
    def git(*words: str) -> str:
        command = ["git", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    measured = ("src", "params.yaml", "benchmarks", ":!benchmarks/results.json")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *measured)
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")
