"""`fieldguide sweep`: search hyperparameters with DVC experiments."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldguide.core.errors import SweepError
from fieldguide.core.output import counted

if TYPE_CHECKING:
    from fieldguide.core.params import Params
    from fieldguide.sweeps.ranking import Configuration
    from fieldguide.sweeps.record import Record
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
        int | None,
        typer.Option(min=1, help="Ray: cores that a trial reserves; compute.threads, or 1"),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(min=0, help="Ray: GPUs that a trial reserves; by default train.devices"),
    ] = None,
    git_remote: Annotated[
        str | None,
        typer.Option(help="Ray: Git remote for the commit and the experiments; origin"),
    ] = None,
    checkpoints: Annotated[
        int | None,
        typer.Option(
            min=1, help="most checkpoints of each rung; by default all that may be promoted"
        ),
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
            cpus=cpus,
            gpus=gpus,
            checkpoints=checkpoints,
        )
    elif (cpus, gpus, git_remote) != (None, None, None):
        raise SweepError("--cpus, --gpus and --git-remote: need --engine ray")
    else:
        from fieldguide.sweeps.local import LocalPool, cores, portable_threads

        wanted = (jobs or 1) * (portable_threads(base, sweep.fixed) or 0)
        if wanted > (found := cores()):
            print(
                f"{counted(jobs or 1, 'trial')} at a time: {wanted} threads on "
                f"{counted(found, 'core')}, which is slow; lower -j, or compute.threads in {file}",
                file=sys.stderr,
            )
        pool = partial(LocalPool, root, jobs=jobs or 1, base=base, fixed=sweep.fixed)
        finished = run_sweep(root, sweep, base, pool, checkpoints)
    if not finished:
        raise typer.Exit(1)


def _run_on_cluster(
    sweep: Sweep,
    base: Params,
    address: str,
    *,
    remote: str,
    jobs: int | None,
    cpus: int | None,
    gpus: float | None,
    checkpoints: int | None,
) -> bool:
    from fieldguide.prepare.ray_connection import connected
    from fieldguide.sweeps.driver import run_sweep

    root = Path.cwd()
    with connected(address):
        from fieldguide.sweeps.cluster import RayPool, gpus_of_a_trial
        from fieldguide.sweeps.local import portable_threads

        if gpus is None:
            gpus = gpus_of_a_trial(base, sweep.fixed)
        if cpus is None:
            cpus = portable_threads(base, sweep.fixed) or 1
        pool = partial(
            RayPool, root, sweep=sweep.name, remote=remote, cpus=cpus, gpus=gpus, jobs=jobs
        )
        return run_sweep(root, sweep, base, pool, checkpoints)


@app.command("list")
def list_configurations(
    file: SweepFile,
    top: Annotated[int, typer.Option(min=1, help="how many to list")] = 20,
) -> None:
    """List a sweep's configurations, best first."""
    record = _read(file)
    ranked = _ranked(record)
    print(f"{'rank':>4}  {record.sweep.metric:<15}  {'epochs':>6}  {'seconds':>7}  experiment")
    for place, one in enumerate(ranked[:top], start=1):
        score = f"{one.mean:.4f}" + ("" if one.spread is None else f" ± {one.spread:.4f}")
        note = "" if one.state == "complete" else f"  ({one.state})"
        print(f"{place:>4}  {score:<15}  {one.epochs:>6}  {one.seconds:>7.0f}  {one.name}{note}")
    if len(ranked) > top:
        print(f"and {len(ranked) - top} more: --top {len(ranked)}")
    _tell_missing(record)


@app.command()
def best(
    file: SweepFile,
    apply: Annotated[
        bool, typer.Option("--apply", help="set its params, and evaluate it by `dvc repro`")
    ] = False,
) -> None:
    """Show the best configuration.

    Only --apply opens the test set, and only for this configuration.
    """
    record = _read(file)
    winner = _ranked(record)[0]
    spread = (
        "" if winner.spread is None else f" ± {winner.spread:.4f} over {len(winner.scores)} seeds"
    )
    print(f"{winner.name}\n  {record.sweep.metric}  {winner.mean:.4f}{spread}")
    width = max(map(len, winner.values), default=0)
    for key, value in winner.values.items():
        print(f"  {key:<{width}}  {value}")
    if not apply:
        print(f"\nInto params.yaml, with its test scores: fieldguide sweep best {file} --apply")
        return
    if winner.state == "paused":
        raise SweepError(
            f"{file}: no configuration has been trained to the end; fieldguide sweep run {file}"
        )
    _apply(record, winner.name)


def _apply(record: Record, name: str) -> None:
    """Set the params of the first seed's experiment, which is not the luckiest one."""
    from fieldguide.sweeps.experiments import Winner

    winner = Winner(ROOT, record.facts["baseline"], name)
    for line in winner.apply():
        print(f"params.yaml: {line}")
    pull = []
    if not winner.is_cached:  # but on the remote, if a cluster has trained it
        winner.enter_in_lock()
        pull = ["--pull"]
    done = subprocess.run([sys.executable, "-m", "dvc", "repro", *pull], check=False)
    if done.returncode == 0 and not winner.is_in_workspace:
        print(
            f"{name} was trained again, because its code, data or Python packages have changed "
            "since, or its model was deleted: the model is not the same"
        )
    raise typer.Exit(done.returncode)


@app.command()
def report(file: SweepFile) -> None:
    """Write a page about the finished trials, plots/sweep.html."""
    from fieldguide.sweeps.sweep_page import write_page

    record = _read(file)
    page = Path("plots/sweep.html")
    write_page(record.ended, record.sweep, page)
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
    from fieldguide.sweeps.driver import locked
    from fieldguide.sweeps.experiments import free_models

    with locked(ROOT, _load(file)[0]):
        record = _read(file)
        ranked = _ranked(record)
        files, size = free_models(ROOT, record, ranked, keep_top=keep_top, dry_run=dry_run)
    for one in ranked[:keep_top]:
        print(f"keep  {one.name}")
    print(
        f"{'would free' if dry_run else 'freed'} {size / 1e6:,.1f} MB: {files} "
        f"files of {len(ranked[keep_top:])} configurations; their params and metrics stay"
    )


def _load(file: Path) -> tuple[Sweep, Params]:
    from fieldguide.core.params import load_params
    from fieldguide.results.git import subfolder_of
    from fieldguide.sweeps.space import name_in_repository
    from fieldguide.sweeps.sweep_file import load_sweep

    base = load_params()
    sweep = load_sweep(file, base)
    return replace(sweep, name=name_in_repository(sweep.name, subfolder_of(ROOT))), base


def _read(file: Path) -> Record:
    """Open the record of a sweep, which a driver may be running."""
    from fieldguide.sweeps.record import Record

    return Record(*_load(file), writes=False)


def _ranked(record: Record) -> list[Configuration]:
    from fieldguide.sweeps.ranking import rank

    return rank(record.ended, record.sweep)


def _tell_missing(record: Record) -> None:
    """Say which experiments are not in this repository, and how to get them."""
    from fieldguide.sweeps.experiments import missing

    if names := missing(ROOT, record):
        print(
            f"{len(names)} of {len(record.results)} experiments are not in this repository, as "
            f"{names[0]}: `dvc exp pull REMOTE NAME ...` gets them, and `fieldguide sweep run "
            f"{record.sweep.path}` trains them again"
        )
