"""Time that a Bayesian search needs to reach the best score of a random search.

    make venv && . .venv/bin/activate
    OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/bayes_against_random.py --seeds 0 1 2

Both searches run real trainings over the original ten parameters, at a small size: 1,000 photos of
the bundled sample (600 to train, 400 to validate), 9 epochs. The random search trains 60
configurations to the end. The Bayesian search does one run after the other, as the record of
`fieldguide sweep run` wants them: each run trains a configuration to a rung, or goes on from the
checkpoint of the rung below. It ends when a run reaches the random search's best val/acc, or when
it has used as much time as the whole random search.

Time is CPU time, so that other work on the machine does not count. For each run it is the time of
`train` in this process, from building the network and reading the checkpoint to writing the
results, plus that of a start, which is measured at the beginning: one `dvc exp run` of a stage that
does nothing, and one Python that imports what a training imports. The clone of a worker is not
counted; sweep_overhead.py measures what it adds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contender import ROOT
from small_project import BIN, empty_project, run

if TYPE_CHECKING:
    from fieldguide.sweeps.space import Run

PHOTOS_PER_CLASS = 100
SPACE = {
    "metric": {"name": "val/acc"},
    "parameters": {
        "first_layer_filters": {"values": [4, 8, 16]},
        "filter_org": {"values": [0.5, 1, 2]},
        "conv_layers": {"values": [3, 4, 5]},
        "activation": {"values": ["relu", "gelu", "silu", "mish"]},
        "dropout": {"values": [0, 0.2, 0.3, 0.5]},
        "batch_norm": {"values": [True, False]},
        "num_neurons_dense": {"values": [64, 128, 256]},
        "batch_size": {"values": [32, 64, 128]},
        "learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
        "use_augmentation": {"values": [True, False]},
        "train.epochs": {"value": 9},
        "train.patience": {"value": 9},
        "train.accelerator": {"value": "cpu"},
    },
}
EARLY = {"type": "hyperband", "min_iter": 1, "eta": 3}


class Search:
    """One sweep whose runs are trained one after the other in this process."""

    def __init__(self, folder: Path, store: Path, *, method: str, seed: int, cap: int) -> None:
        from fieldguide.core.params import load_params
        from fieldguide.sweeps.record import Record
        from fieldguide.sweeps.sweep_file import load_sweep

        definition = {**SPACE, "method": method, "seed": seed, "run_cap": cap}
        if method == "bayes":
            definition["early_terminate"] = EARLY
        file = folder / f"{method}-{seed}.yaml"
        file.write_text(json.dumps(definition), encoding="utf-8")
        self.base = load_params(ROOT / "params.yaml")
        self.record = Record(load_sweep(file, self.base), self.base)
        self.folder, self.store = folder, store

    def runs(self) -> Iterator[dict[str, Any]]:
        """Train one run after the other and yield the facts of each."""
        from fieldguide.core.errors import TrainingError

        while wanted := self.record.next():
            start = time.process_time()
            try:
                score, epochs = self._train(wanted)
            except TrainingError as err:
                self.record.fail(wanted, str(err), log="")
                score, epochs = 0.0, 0
            else:
                self.record.finish(wanted, score=score, epochs=epochs, seconds=0)
            yield {
                "configuration": wanted.number,
                "values": wanted.overrides,
                "score": score,
                "epochs": epochs,
                "seconds": round(time.process_time() - start, 2),
            }

    def _train(self, wanted: Run) -> tuple[float, int]:
        """Return the best score of a training so far, and all its epochs."""
        from fieldguide.core.store import Store
        from fieldguide.sweeps.space import with_values
        from fieldguide.training.loop import train
        from fieldguide.training.outputs import Outputs

        params = with_values(self.base, wanted.overrides)
        outputs = Outputs(*(self.folder / name for name in Outputs._fields))
        with contextlib.redirect_stdout(io.StringIO()):
            facts = train(params.train, params.model, store=Store(self.store), outputs=outputs)
        metrics = json.loads((outputs.metrics / "metrics.json").read_text(encoding="utf-8"))
        return metrics["best"]["val_acc"], int(facts["epochs_run"])


def seconds_of_a_start() -> float:
    """Return the CPU seconds of a run's processes beyond its training: the median of three."""
    imports = "import dvclive, scmrepo.exceptions, fieldguide.training.loop"
    with tempfile.TemporaryDirectory() as name:
        project = empty_project(Path(name) / "project")
        found = []
        for number in range(1, 5):
            before = sum(os.times()[2:4])  # of ended children, user and system
            run(str(BIN / "dvc"), "exp", "run", "-S", f"number={number}", folder=project)
            run(str(BIN / "python"), "-c", imports, folder=ROOT)
            found.append(sum(os.times()[2:4]) - before)
    return statistics.median(found[1:])  # the first compiles bytecode


def prepare_store(folder: Path) -> Path:
    """Prepare a store of PHOTOS_PER_CLASS photos per class and split of the sample."""
    from fieldguide.core.params import load_params
    from fieldguide.prepare.prepare import prepare

    small = folder / "small.zip"
    count: dict[str, int] = {}
    with zipfile.ZipFile(ROOT / "data/sample.zip") as source, zipfile.ZipFile(small, "w") as target:
        for name in sorted(source.namelist()):
            group = str(Path(name).parent)
            count[group] = count.get(group, 0) + 1
            if name.endswith(".jpg") and count[group] <= PHOTOS_PER_CLASS:
                target.writestr(name, source.read(name))
    params = load_params(ROOT / "params.yaml").data
    params = params.model_copy(update={"archive": str(small), "val_fraction": 0.4})
    with contextlib.redirect_stdout(io.StringIO()):
        prepare(params, folder / "prepared")
    return folder / "prepared"


def compare(store: Path, seed: int, trials: int, start: float) -> dict[str, Any]:
    """Run both searches with one seed and return the facts of every run.

    Args:
        store: photos to train on.
        seed: of the proposals.
        trials: of the random search.
        start: CPU seconds that a run costs beyond its training.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DVC_ROOT"] = name  # checkpoints go there
        random = list(Search(folder, store, method="random", seed=seed, cap=trials).runs())
        best = max(one["score"] for one in random)
        total = sum(one["seconds"] + start for one in random)
        # Another seed, because a Bayesian search starts with random configurations: they must not
        # be those of the random search.
        other = Search(folder, store, method="bayes", seed=seed + 1000, cap=10 * trials)
        bayes: list[dict[str, Any]] = []
        spent = 0.0
        for one in other.runs():
            bayes.append(one)
            spent += one["seconds"] + start
            if one["score"] >= best or spent > total:
                break
    reached = bayes[-1]["score"] >= best
    training = [sum(one["seconds"] for one in runs) for runs in (bayes, random)]
    print(
        f"seed {seed}: random {trials} runs, {total:.0f} s, best {best:.4f}; bayes "
        f"{'reached it' if reached else 'did not reach it'} after {len(bayes)} runs of "
        f"{1 + max(one['configuration'] for one in bayes)} configurations, {spent:.0f} s: "
        f"{spent / total:.2f} of the time ({training[0] / training[1]:.2f} without starts)",
        flush=True,
    )
    facts = {"seed": seed, "start": start, "best": best, "reached": reached}
    return {**facts, "share": spent / total, "random": random, "bayes": bayes}


def main() -> None:
    """Compare the searches with several seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=60, help="of the random search")
    parser.add_argument("--out", type=Path, help="JSON file to write every run's facts to")
    options = parser.parse_args()
    start = seconds_of_a_start()
    print(f"a start costs {start:.2f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        store = prepare_store(Path(folder))
        found = [compare(store, seed, options.trials, start) for seed in options.seeds]
    print(f"median: {statistics.median(one['share'] for one in found):.2f} of the time")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
