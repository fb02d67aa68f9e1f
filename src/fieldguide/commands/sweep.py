"""`fieldguide sweep`: search hyperparameters with DVC experiments."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldguide.core.errors import SweepError

if TYPE_CHECKING:
    from fieldguide.core.params import Params
    from fieldguide.sweeps.ranking import Configuration
    from fieldguide.sweeps.space import Sweep

app = typer.Typer(no_args_is_help=True, help="Search hyperparameters with DVC experiments.")

SweepFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="a sweep file, as sweeps/original.yaml")
]


class Engine(StrEnum):
    """Where trials run."""

    local = "local"
    ray = "ray"


ROOT = Path()  # commands run in the project's folder, as dvc repro does


@app.command("run")
def run(
    file: SweepFile,
    *,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="trials at a time; 1, or what Ray's nodes hold"),
    ] = None,
    engine: Annotated[Engine, typer.Option(help="where trials run")] = Engine.local,
    address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="Ray: host:port of the head")
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="Ray: cores that a trial reserves; 1")
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(min=0, help="Ray: GPUs that a trial reserves; by default train.devices"),
    ] = None,
    git_remote: Annotated[
        str | None,
        typer.Option(help="Ray: Git remote for the commit and the experiments; origin"),
    ] = None,
) -> None:
    """Run a sweep, or go on with one that was interrupted."""
    from fieldguide.sweeps.driver import run_sweep

    sweep, base = _load(file)
    root = Path.cwd()
    if engine is Engine.ray:
        if address is None:
            raise SweepError("--address: missing; --engine ray needs host:port of the head")
        finished = _run_on_cluster(
            *(sweep, base, address),
            remote=git_remote or "origin",
            jobs=jobs,
            cpus=cpus or 1,
            gpus=gpus,
        )
    elif (cpus, gpus, git_remote) != (None, None, None):
        raise SweepError("--cpus, --gpus and --git-remote: need --engine ray")
    else:
        from fieldguide.sweeps.local import LocalPool

        pool = partial(LocalPool, root, jobs=jobs or 1, base=base, fixed=sweep.fixed)
        finished = run_sweep(root, sweep, base, pool)
    if not finished:
        raise typer.Exit(1)


def _run_on_cluster(
    sweep: Sweep,
    base: Params,
    address: str,
    *,
    remote: str,
    jobs: int | None,
    cpus: int,
    gpus: float | None,
) -> bool:
    from fieldguide.prepare.ray_connection import connected
    from fieldguide.sweeps.driver import run_sweep

    root = Path.cwd()
    # By this name, the next driver of the sweep finds the workers of one that was killed.
    namespace = f"fieldguide {socket.gethostname()} {root} {sweep.name}"
    with connected(address, namespace=namespace):
        from fieldguide.sweeps.cluster import RayPool, Share, gpus_of_a_trial

        share = Share(cpus, gpus_of_a_trial(base, sweep.fixed) if gpus is None else gpus)
        pool = partial(RayPool, root, sweep=sweep.name, remote=remote, share=share, jobs=jobs)
        return run_sweep(root, sweep, base, pool)


@app.command("list")
def list_trials(
    file: SweepFile,
    top: Annotated[int, typer.Option(min=1, help="how many to list")] = 20,
) -> None:
    """List a sweep's configurations, best first."""
    sweep, _ = _load(file)
    ranked = _ranked(sweep)
    print(f"{'rank':>4}  {sweep.metric:<15}  {'seconds':>7}  experiment")
    for place, one in enumerate(ranked[:top], start=1):
        score = f"{one.mean:.4f}" + ("" if one.spread is None else f" ± {one.spread:.4f}")
        seconds = f"{sum(trial.seconds for trial in one.trials):.0f}"
        note = "  (pruned)" if one.pruned else ""
        print(f"{place:>4}  {score:<15}  {seconds:>7}  {one.trials[0].name}{note}")
    if len(ranked) > top:
        print(f"and {len(ranked) - top} more: --top {len(ranked)}")


@app.command()
def best(
    file: SweepFile,
    apply: Annotated[
        bool, typer.Option("--apply", help="bring it into the workspace and evaluate it")
    ] = False,
) -> None:
    """Show the best configuration.

    Only --apply opens the test set, and only for this configuration.
    """
    sweep, _ = _load(file)
    winner = _ranked(sweep)[0]
    name = winner.trials[0].name
    spread = (
        "" if winner.spread is None else f" ± {winner.spread:.4f} over {len(winner.scores)} seeds"
    )
    print(f"{name}\n  {sweep.metric}  {winner.mean:.4f}{spread}")
    width = max(map(len, winner.values), default=0)
    for key, value in winner.values.items():
        print(f"  {key:<{width}}  {value}")
    if not apply:
        print(f"\nInto the workspace, with its test scores: fieldguide sweep best {file} --apply")
        return
    _apply(winner)


def _apply(winner: Configuration) -> None:
    """Bring the winner's first seed, which is not the luckiest one, into the workspace."""
    from fieldguide.results.git import git
    from fieldguide.sweeps.slot import TARGET

    trial = winner.trials[0]
    _refuse_to_overwrite(trial.name)
    dvc = [sys.executable, "-m", "dvc"]
    # It fails if a model or figures are no longer in the cache; `repro` makes them again.
    subprocess.run([*dvc, "exp", "apply", trial.name], check=False)
    if subprocess.run([*dvc, "checkout", TARGET], check=False, capture_output=True).returncode:
        subprocess.run([*dvc, "pull", TARGET], check=False)  # it was trained on a cluster's node
    if git(ROOT, "diff", "--name-only", trial.rev, "--", "params.yaml"):
        raise SweepError(f"dvc exp apply {trial.name} failed; params.yaml is not the winner's")
    raise typer.Exit(subprocess.run([*dvc, "repro"], check=False).returncode)


def _refuse_to_overwrite(name: str) -> None:
    """Refuse changes of the repository that are no results: `dvc exp apply` would drop them."""
    from fieldguide.results.git import git, subfolder_of

    project = subfolder_of(ROOT)
    results = tuple(f"{project}{path}" for path in ("dvc.lock", "metrics/", "plots/"))
    changed = git(ROOT, "diff", "--name-only", "HEAD").split("\n")
    mine = [path for path in changed if path and not path.startswith(results)]
    if mine:
        raise SweepError(
            f"{', '.join(mine)}: changed and not committed, and {name} would replace it; "
            "commit it, or put it away with `git stash`"
        )


@app.command()
def report(file: SweepFile) -> None:
    """Write a page about the finished trials, plots/sweep.html."""
    from fieldguide.sweeps.sweep_report import write_report

    sweep, _ = _load(file)
    page = Path("plots/sweep.html")
    write_report(
        *(ROOT, sweep.name),
        metric=sweep.metric,
        goal=sweep.goal,
        seeds=sweep.seeds,
        page=page,
    )
    print(page)


@app.command()
def gc(
    file: SweepFile,
    keep_top: Annotated[int, typer.Option(min=1, help="configurations that keep their models")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Delete the models of trials that lost.

    They leave DVC's cache; their metrics stay.
    """
    from fieldguide.sweeps.disk import free_models
    from fieldguide.sweeps.driver import locked

    sweep, _ = _load(file)
    with locked(ROOT, sweep):
        freed = free_models(ROOT, _ranked(sweep), keep_top=keep_top, dry_run=dry_run)
    for one in freed.kept:
        print(f"keep  {one.trials[0].name}")
    print(
        f"{'would free' if dry_run else 'freed'} {freed.size / 1e6:,.1f} MB: {len(freed.files)} "
        f"files of {len(freed.lost)} configurations; their params and metrics stay"
    )


def _load(file: Path) -> tuple[Sweep, Params]:
    from fieldguide.core.params import load_params
    from fieldguide.results.git import subfolder_of
    from fieldguide.sweeps.names import name_in_repository
    from fieldguide.sweeps.sweep_file import load_sweep

    base = load_params()
    sweep = load_sweep(file, base)
    return replace(sweep, name=name_in_repository(sweep.name, subfolder_of(ROOT))), base


def _ranked(sweep: Sweep) -> list[Configuration]:
    from fieldguide.sweeps.experiments import read_trials
    from fieldguide.sweeps.ranking import rank

    trials = read_trials(ROOT, sweep.name)
    ranked = rank(trials, metric=sweep.metric, goal=sweep.goal, seeds=sweep.seeds)
    if not ranked:
        raise SweepError(f"{sweep.path}: no trial has finished; fieldguide sweep run {sweep.path}")
    return ranked
