"""The gate on real trainings: seven seeds that must pass each other, three bad ones that must not.

    make venv && . .venv/bin/activate
    OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/gate.py ../gate-trainings

Ten trainings on the bundled sample as DVC experiments in a clone of this repository, one after the
other; what is there already is not trained again. Seeds 0 to 6 of the same params are compared in
all 21 pairs, each in both directions, and the bad models with each seed. Of the same test photos
and seed 0, the bad ones saw other training photos:

half     every second photo of each class
swapped  all of cat labelled dog, and all of dog labelled cat
missing  deer has two photos, the fewest that `prepare` takes: it refuses a class without any
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
SEEDS = range(7)
SWAPPED = {"cat": "dog", "dog": "cat"}
MISSING = "deer"
SAMPLE = "data/sample.zip"

# What becomes of the nth training photo of a class: the class it is filed under, or None.
Filing = Callable[[str, int], str | None]
BAD: dict[str, Filing] = {
    "half": lambda label, n: label if n % 2 == 0 else None,
    "swapped": lambda label, _: SWAPPED.get(label, label),
    "missing": lambda label, n: label if label != MISSING or n < 2 else None,  # noqa: PLR2004
}


def main() -> None:
    """Train what is not trained yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where the clone lies, or shall lie")
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    folder = options.folder.absolute()
    if not folder.exists():
        clone(folder)
    train_all(folder, options.epochs)


def clone(folder: Path) -> None:
    """Clone this repository, with the archives of the bad models."""
    run(ROOT, "git", "clone", "--quiet", str(ROOT), str(folder))
    run(folder, "git", "config", "user.name", "benchmark")
    run(folder, "git", "config", "user.email", "benchmark@localhost")
    for name, file in BAD.items():
        refile(folder / SAMPLE, folder / "data" / f"{name}.zip", file)
        run(folder, sys.executable, "-m", "dvc", "add", "--quiet", f"data/{name}.zip")
    run(folder, "git", "add", "data")
    run(folder, "git", "commit", "--quiet", "--message", "Archives of the bad models")


def refile(source: Path, target: Path, file: Filing) -> None:
    """Copy an archive with its training photos filed anew; the test photos stay as they are."""
    seen: dict[str, int] = {}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in sorted(old.infolist(), key=lambda entry: entry.filename):
            *top, part, label, name = PurePosixPath(entry.filename).parts
            filed: str | None = label
            if part == "train":
                filed = file(label, seen.get(label, 0))
                seen[label] = seen.get(label, 0) + 1
            if filed is not None:
                path = "/".join([*top, part, filed, name])
                new.writestr(zipfile.ZipInfo(path, entry.date_time), old.read(entry))


def train_all(folder: Path, epochs: int) -> None:
    """Run the experiments that are not there yet."""
    there = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "list", "--name-only"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    wanted = [(f"seed-{seed}", SAMPLE, seed) for seed in SEEDS]
    wanted += [(name, f"data/{name}.zip", 0) for name in BAD]
    for name, archive, seed in wanted:
        if name in there:
            continue
        print(f"training {name}", flush=True)
        values = (f"data.archive={archive}", f"train.seed={seed}", f"train.epochs={epochs}")
        sets = [word for value in values for word in ("--set-param", value)]
        command = ("exp", "run", "--quiet", "--name", name, *sets, "evaluate")
        run(folder, sys.executable, "-m", "dvc", *command)


def run(folder: Path, *command: str) -> None:
    """Run a command of ours, with this interpreter first in PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, check=True)


if __name__ == "__main__":
    main()
