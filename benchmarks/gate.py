"""Test the gate on real trainings: seven seeds must pass each other, three bad models must fail.

    make venv && . .venv/bin/activate
    OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/gate.py ../gate-trainings

Runs ten trainings on the bundled sample, one after the other, as DVC experiments in a clone of this
repository; experiments that exist are not trained again. Seeds 0 to 6 of the same params are
compared in all 21 pairs, in both directions. Each bad model is compared with each seed. The bad
models have seed 0 and the same test photos, but other training photos:

half     every second photo of each class
swapped  all photos of cat labelled dog, and all photos of dog labelled cat
missing  two photos of deer, the fewest that `prepare` accepts: it refuses a class without any

--outcomes writes the CSV that tests/gate/test_trainings.py reads: for each test photo the true
class, and each model's answer and confidence.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from fieldguide.gate.checks import Checks
    from fieldguide.gate.outcome import CheckResult
    from fieldguide.results.results import Results

ROOT = Path(__file__).resolve().parents[1]
SEEDS = range(7)
SWAPPED = {"cat": "dog", "dog": "cat"}
MISSING = "deer"
SAMPLE = "data/sample.zip"
SCORES = ("test.acc", "test.bal_acc", "test.macro_f1", "test.ece")

# Takes a class and the number of one of its training photos; returns the class in whose folder the
# photo goes, or None to leave the photo out.
Filing = Callable[[str, int], str | None]
BAD: dict[str, Filing] = {
    "half": lambda label, n: label if n % 2 == 0 else None,
    "swapped": lambda label, _: SWAPPED.get(label, label),
    "missing": lambda label, n: label if label != MISSING or n < 2 else None,  # noqa: PLR2004
}


def main() -> None:
    """Train the models that are missing, and compare all models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="the clone; made if it does not exist")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--outcomes", type=Path, help="CSV to write")
    options = parser.parse_args()
    folder = options.folder.absolute()
    if not folder.exists():
        clone(folder)
    train_all(folder, options.epochs)
    from fieldguide.core.params import load_yaml
    from fieldguide.gate.checks import Checks
    from fieldguide.results.results import read_results

    names = [f"seed-{seed}" for seed in SEEDS], list(BAD)
    seeds, bad = ({name: read_results(name, folder) for name in half} for half in names)
    show_scores({**seeds, **bad})
    show_spread(list(seeds.values()))
    checks = load_yaml(ROOT / "checks.yaml", Checks)
    show_pairs(checks, list(seeds.values()))
    show_bad(checks, seeds, bad)
    if options.outcomes:
        write_outcomes({**seeds, **bad}, options.outcomes)


def clone(folder: Path) -> None:
    """Clone this repository and commit the archives of the bad models."""
    run(ROOT, "git", "clone", "--quiet", str(ROOT), str(folder))
    run(folder, "git", "config", "user.name", "benchmark")
    run(folder, "git", "config", "user.email", "benchmark@localhost")
    for name, file in BAD.items():
        refile(folder / SAMPLE, folder / "data" / f"{name}.zip", file)
        run(folder, sys.executable, "-m", "dvc", "add", "--quiet", f"data/{name}.zip")
    run(folder, "git", "add", "data")
    run(folder, "git", "commit", "--quiet", "--message", "Archives of the bad models")


def refile(source: Path, target: Path, file: Filing) -> None:
    """Copy an archive, moving training photos to the class that `file` says."""
    seen: dict[str, int] = {}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in sorted(old.infolist(), key=lambda entry: entry.filename):
            *top, split, label, name = PurePosixPath(entry.filename).parts
            filed: str | None = label
            if split == "train":
                filed = file(label, seen.get(label, 0))
                seen[label] = seen.get(label, 0) + 1
            if filed is not None:
                path = "/".join([*top, split, filed, name])
                new.writestr(zipfile.ZipInfo(path, entry.date_time), old.read(entry))


def train_all(folder: Path, epochs: int) -> None:
    """Run the experiments that do not exist yet."""
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


def show_scores(models: dict[str, Results]) -> None:
    """Print a line for each model."""
    print("\n" + "".join(f"{head:>15}" for head in ("model", *SCORES)))
    for name, model in models.items():
        print(f"{name:>15}" + "".join(f"{model.metrics[score]:>15.3f}" for score in SCORES))


def show_spread(seeds: list[Results]) -> None:
    """Print how much the scores differ of trainings that have different seeds only.

    Print beside it the standard error that McNemar's test expects by chance, √(photos on which two
    models differ) / photos: for all photos, and for the class whose recall changes most.
    """
    from fieldguide.results.results import need

    print(f"\n{'over seeds':>15}{'mean':>15}{'SD':>15}{'largest gap':>15}")
    for score in SCORES:
        found = [model.metrics[score] for model in seeds]
        numbers = (statistics.fmean(found), statistics.stdev(found), max(found) - min(found))
        print(f"{score:>15}" + "".join(f"{number:>15.4f}" for number in numbers))
    tables = [need(model.predictions) for model in seeds]
    right = [table.labels == table.predicted for table in tables]
    print(f"\n{'two seeds':>15}{'RMS apart':>15}{'McNemar error':>15}")
    rows = {"test.acc": apart(right)}
    for k, name in enumerate(tables[0].classes):
        rows[name] = apart([one[tables[0].labels == k] for one in right])
    most = max(tables[0].classes, key=lambda name: rows[name][0] / rows[name][1])
    for name in ("test.acc", most):
        print(f"{name:>15}" + "".join(f"{number:>15.4f}" for number in rows[name]))


def apart(right: list[npt.NDArray[np.bool_]]) -> tuple[float, float]:
    """Return the root mean square difference of two accuracies, and McNemar's standard error.

    Args:
        right: of each training, (N,), True where the photo was classified correctly.
    """
    pairs = list(itertools.combinations(right, 2))
    gaps = statistics.fmean(float(one.mean() - other.mean()) ** 2 for one, other in pairs)
    differing = statistics.fmean(float((one != other).mean()) for one, other in pairs)
    return math.sqrt(gaps), math.sqrt(differing / len(right[0]))


def show_pairs(checks: Checks, seeds: list[Results]) -> None:
    """Print how often each check fails when two seeds are compared."""
    from fieldguide.gate.judge import judge
    from fieldguide.gate.outcome import Status

    outcomes = [judge(checks, old, new) for old, new in itertools.permutations(seeds, 2)]
    found: dict[str, list[CheckResult]] = {}
    for outcome in outcomes:
        for one in outcome.checks:
            if one.p is not None:
                key = "recall" if one.name.startswith("recall.") else one.name
                found.setdefault(key, []).append(one)
    print(f"\n{'check':>15}{'significance':>15}{'smallest p':>15}{'failed':>15}")
    for key, results in found.items():
        smallest = min(one.p for one in results if one.p is not None)
        failures = sum(one.status == "failed" for one in results)
        print(f"{key:>15}{results[0].significance:>15}{smallest:>15.4f}{failures:>15}")
    failed = sum(outcome.exit_status != 0 for outcome in outcomes)
    print(
        f"\n{failed} of {len(outcomes)} comparisons of two seeds fail (21 pairs, both directions)"
    )
    strict = without_tolerance(checks)
    outcomes = [judge(strict, old, new) for old, new in itertools.permutations(seeds, 2)]
    names = [one.name for outcome in outcomes for one in outcome.of(Status.FAILED)]
    failed = sum(outcome.exit_status != 0 for outcome in outcomes)
    print(f"with every tolerated_loss 0: {failed} fail, by {', '.join(names) or 'nothing'}")


def without_tolerance(checks: Checks) -> Checks:
    """Return a copy of the checks with every tolerated_loss 0, and fewer resamples."""
    assert checks.per_class is not None
    none = {"tolerated_loss": 0.0}
    metrics = {name: check.model_copy(update=none) for name, check in checks.metrics.items()}
    per_class = checks.per_class.model_copy(update=none)
    return checks.model_copy(update={"metrics": metrics, "per_class": per_class, "resamples": 999})


def show_bad(checks: Checks, seeds: dict[str, Results], bad: dict[str, Results]) -> None:
    """Print how often each bad model fails, and the gate's reasons against the first seed."""
    from fieldguide.gate.judge import judge

    for name, model in bad.items():
        outcomes = [judge(checks, seed, model) for seed in seeds.values()]
        failed = sum(outcome.exit_status == 1 for outcome in outcomes)
        print(
            f"\n{name} fails against {failed} of {len(seeds)} seeds; against {next(iter(seeds))}:"
        )
        for one in outcomes[0].checks:
            if one.reason:
                print(f"  {one.reason}")


def write_outcomes(models: dict[str, Results], path: Path) -> None:
    """Write one line per test photo: the true class, then each model's answer and confidence."""
    from fieldguide.core.files import write_csv
    from fieldguide.results.results import need

    tables = [need(model.predictions) for model in models.values()]
    header = ["true", *(f"{name} {what}" for name in models for what in ("answer", "confidence"))]
    columns: list[Iterable[object]] = [tables[0].labels]
    for table in tables:
        columns += [table.predicted, (f"{value:.3f}" for value in table.confidence)]
    write_csv(path, header, zip(*columns, strict=True))


def run(folder: Path, *command: str) -> None:
    """Run a command with this interpreter's folder first in PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, check=True)


if __name__ == "__main__":
    main()
