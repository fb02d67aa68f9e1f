"""Training time that a Bayesian search needs to reach the best score of a random search.

    make venv && . .venv/bin/activate
    OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/bayes_against_random.py --seeds 0 1 2

Both searches run real trainings over the original ten parameters, at a small size: 1,000 photos of
the bundled sample (600 to train, 400 to validate), 9 epochs. The random search trains 60
configurations to the end. The Bayesian search trains one configuration after the other until one
reaches the random search's best val/acc, or until it has used as much time as the whole random
search. Time is CPU time, so that other work on the machine does not count. Proposals and early
termination are those of `fieldguide sweep run`. DVC is not part of this: sweep_overhead.py measures
what it costs.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
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
    """One sweep whose trainings run one after the other in this process."""

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

    def trials(self) -> Any:
        """Train one configuration after the other and yield the facts of each."""
        from fieldguide.core.errors import TrainingError
        from fieldguide.core.store import Store
        from fieldguide.sweeps.record import DONE, FAILED, PRUNED
        from fieldguide.sweeps.space import with_values
        from fieldguide.training.loop import train
        from fieldguide.training.outputs import Outputs

        while run := self.record.propose():
            params = with_values(self.base, run.overrides)
            outputs = Outputs(*(self.folder / name for name in Outputs._fields))
            start = time.process_time()
            channel = InProcess(self.record, run)
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    train(
                        params.train,
                        params.model,
                        store=Store(self.store),
                        outputs=outputs,
                        channel=channel,  # type: ignore[arg-type]
                    )
            except TrainingError as err:
                self.record.end(run, FAILED, reason=str(err))
                score, state = 0.0, FAILED
            else:
                metrics = json.loads((self.folder / "metrics/metrics.json").read_text())
                score, state = metrics["best"]["val_acc"], PRUNED if "pruned" in metrics else DONE
                self.record.end(run, state, score=score, seconds=0)
            yield {
                "values": run.overrides,
                "score": score,
                "state": state,
                "epochs": channel.epochs,
                "seconds": round(time.process_time() - start, 2),
            }


class InProcess:
    """The channel of a trial that runs in the sweep's own process."""

    def __init__(self, record: Any, run: Any) -> None:
        self.record, self.run, self.score, self.epochs = record, run, 0.0, 0

    def report(self, epoch: int, metrics: dict[str, float]) -> None:
        """Keep the epoch's score, by which `may_go_on` decides."""
        self.epochs, self.score = epoch, metrics["val/acc"]

    def may_go_on(self, epoch: int) -> bool:
        """Answer as the driver does."""
        rung = epoch in self.record.rungs
        return not rung or bool(self.record.may_go_on(self.run, epoch, self.score))


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


def compare(store: Path, seed: int, trials: int) -> dict[str, Any]:
    """Run both searches with one seed and return the facts of every trial."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DVC_ROOT"] = name  # checkpoints of interrupted trainings go there
        found: dict[str, Any] = {"seed": seed, "random": [], "bayes": []}
        for trial in Search(folder, store, method="random", seed=seed, cap=trials).trials():
            found["random"].append(trial)
        best = max(trial["score"] for trial in found["random"])
        total = sum(trial["seconds"] for trial in found["random"])
        spent = 0.0
        # Another seed, because a Bayesian search starts with random configurations: they must not
        # be those of the random search.
        other = Search(folder, store, method="bayes", seed=seed + 1000, cap=10 * trials)
        for trial in other.trials():
            found["bayes"].append(trial)
            spent += trial["seconds"]
            if trial["score"] >= best or spent > total:
                break
        found |= {"best": best, "reached": trial["score"] >= best, "share": spent / total}
        print(
            f"seed {seed}: random {trials} trials, {total:.0f} s, best {best:.4f}; bayes "
            f"{'reached it' if found['reached'] else 'did not reach it'} after "
            f"{len(found['bayes'])} trials, {spent:.0f} s: {found['share']:.2f} of the time",
            flush=True,
        )
        return found


def main() -> None:
    """Compare the searches with several seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=60, help="of the random search")
    parser.add_argument("--out", type=Path, help="JSON file to write every trial's facts to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = prepare_store(Path(folder))
        found = [compare(store, seed, options.trials) for seed in options.seeds]
    print(f"median: {statistics.median(one['share'] for one in found):.2f} of the time")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
