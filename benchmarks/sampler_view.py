"""Compare the proposals of TPE when it looks at all finished trials, or only at some of them.

    python benchmarks/sampler_view.py

Searches the noisy objective of sweep_simulation.py over the ten parameters of sweeps/original.yaml,
with early termination and a hundred running trials. Prints for each number of trials in view, as
mean over seeds and its standard error: the score, without noise, of the configuration with the best
noisy score (the highest possible is 0.4995); the same of the last 500 proposals; and the CPU
milliseconds per proposal.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState, create_trial
from sweep_simulation import ROOT, final_score, objective

from fieldguide.core.params import load_params
from fieldguide.sweeps.rungs import Rungs
from fieldguide.sweeps.sampling import View, sample
from fieldguide.sweeps.space import Sweep
from fieldguide.sweeps.sweep_file import load_sweep

OPEN, LAST = 100, 500  # trials


def main() -> None:
    """Search with each number of trials in view and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--views", type=int, nargs="+", default=[250, 500, 1_000_000])
    options = parser.parse_args()
    base = load_params(ROOT / "params.yaml")
    sweep = load_sweep(Path("sweeps/original.yaml"), base)
    print(f"{'view':>8}  {'chosen':>18}  {'last 500':>18}  {'CPU ms':>8}")
    for finished in options.views:
        runs = [search(sweep, finished, options.trials, seed) for seed in range(options.seeds)]
        cells = [_cell(column) for column in zip(*runs, strict=True)]
        print(f"{finished:>8}  {cells[0]:>18}  {cells[1]:>18}  {cells[2]:>8}", flush=True)


def _cell(values: tuple[float, ...]) -> str:
    if values[0] > 1:  # milliseconds
        return f"{statistics.fmean(values):.1f}"
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def search(sweep: Sweep, finished: int, trials: int, seed: int) -> tuple[float, float, float]:
    """Run one search.

    Returns:
        Score of the chosen configuration, mean score of the last proposals, both without noise, and
        CPU milliseconds per proposal.
    """
    view, rungs = View(sweep.goal, sweep.space, finished=finished), Rungs([3, 9], 3, sweep.goal)
    draw = random.Random(seed)  # noqa: S311
    running: list[FrozenTrial] = []
    found: list[tuple[float, float]] = []  # (score with noise, score without)
    proposed, seconds = [], 0.0
    for number in range(trials):
        start = time.process_time()
        values = sample(view, sweep.space, method="bayes", seed=1_000_000 * seed + number)
        seconds += time.process_time() - start
        proposed.append(final_score(values))
        trial = create_trial(state=TrialState.RUNNING, params=values, distributions=sweep.space)
        trial.number = number
        view.started(trial)
        running.append(trial)
        if len(running) == OPEN:
            ended = running.pop(draw.randrange(OPEN))
            _end(ended, rungs)
            view.ended(ended)
            if ended.state == TrialState.COMPLETE:
                found.append((ended.value or 0.0, final_score(ended.params)))
    return max(found)[1], statistics.fmean(proposed[-LAST:]), seconds / trials * 1e3


def _end(trial: FrozenTrial, rungs: Rungs) -> None:
    for epoch in (3, 9):
        score = objective(trial.params, epoch)
        trial.intermediate_values[epoch] = score
        if not rungs.enter(epoch, score):
            trial.state = TrialState.PRUNED
            trial.value = score
            return
    trial.state = TrialState.COMPLETE
    trial.value = objective(trial.params, 24)


if __name__ == "__main__":
    main()
