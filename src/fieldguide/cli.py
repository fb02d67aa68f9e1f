"""The `fieldguide` command, for what is not a stage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fieldguide.errors import FieldguideError, SweepError, printable

if TYPE_CHECKING:
    from fieldguide.sweeps.ranking import Configuration
    from fieldguide.sweeps.space import Sweep

# Heavy libraries are imported inside the commands: --help answers at once.
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
sweep_app = typer.Typer(no_args_is_help=True, help="Search hyperparameters with DVC experiments.")
app.add_typer(sweep_app, name="sweep")

SweepFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="a sweep file, as sweeps/original.yaml")
]
ROOT = Path()  # commands run in the project's top folder, as dvc repro does


@app.callback()
def fieldguide() -> None:
    """Labelled photos in; a trained and explained image classifier out."""


@sweep_app.command("run")
def run(
    file: SweepFile,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="trials at a time")] = 1,
) -> None:
    """Run a sweep, or go on with one that was interrupted."""
    from fieldguide.params import load_params
    from fieldguide.sweeps.driver import run_sweep
    from fieldguide.sweeps.sweep_file import load_sweep

    base = load_params()
    if not run_sweep(Path.cwd(), load_sweep(file, base), base, jobs=jobs):
        raise typer.Exit(1)


@sweep_app.command("list")
def list_trials(
    file: SweepFile,
    top: Annotated[int, typer.Option(min=1, help="how many to list")] = 20,
) -> None:
    """List a sweep's configurations, best first."""
    sweep = _load(file)
    ranked = _ranked(sweep)
    print(f"{'rank':>4}  {sweep.metric:<15}  {'seconds':>7}  experiment")
    for place, one in enumerate(ranked[:top], start=1):
        score = f"{one.mean:.4f}" + ("" if one.spread is None else f" ± {one.spread:.4f}")
        seconds = f"{sum(trial.seconds for trial in one.trials):.0f}"
        note = "  (pruned)" if one.pruned else ""
        print(f"{place:>4}  {score:<15}  {seconds:>7}  {one.trials[0].name}{note}")
    if len(ranked) > top:
        print(f"and {len(ranked) - top} more: --top {len(ranked)}")


@sweep_app.command()
def best(
    file: SweepFile,
    apply: Annotated[
        bool, typer.Option("--apply", help="bring it into the workspace and evaluate it")
    ] = False,
) -> None:
    """Show the best configuration; its test scores come with --apply, and only they."""
    from fieldguide.git import git

    sweep = _load(file)
    winner = _ranked(sweep)[0]
    trial = winner.trials[0]  # not the luckiest seed
    spread = (
        "" if winner.spread is None else f" ± {winner.spread:.4f} over {len(winner.scores)} seeds"
    )
    print(f"{trial.name}\n  {sweep.metric}  {winner.mean:.4f}{spread}")
    width = max(map(len, winner.values), default=0)
    for key, value in winner.values.items():
        print(f"  {key:<{width}}  {value}")
    if not apply:
        print(f"\nInto the workspace, with its test scores: fieldguide sweep best {file} --apply")
        return
    _refuse_to_overwrite(trial.name)
    dvc = [sys.executable, "-m", "dvc"]
    # It fails where a model or figures have left the cache; `repro` makes them again.
    subprocess.run([*dvc, "exp", "apply", trial.name], check=False)
    if git(ROOT, "diff", "--name-only", trial.rev, "--", "params.yaml"):
        raise SweepError(f"dvc exp apply {trial.name} failed; params.yaml is not the winner's")
    raise typer.Exit(subprocess.run([*dvc, "repro"], check=False).returncode)


@sweep_app.command()
def report(file: SweepFile) -> None:
    """Write plots/sweep.html and pictures of it, from the experiments in Git."""
    from fieldguide.sweeps.report import write_report

    sweep = _load(file)
    written = write_report(
        ROOT,
        sweep.name,
        metric=sweep.metric,
        goal=sweep.goal,
        seeds=sweep.seeds,
        html=Path("plots/sweep.html"),
        pictures=Path("plots/sweep"),
    )
    print("\n".join(str(path) for path in written))


@sweep_app.command()
def gc(
    file: SweepFile,
    keep_top: Annotated[int, typer.Option(min=1, help="configurations that keep their models")],
    budget: Annotated[
        str | None, typer.Option(help="what the kept models may take, as 500MB or 20GB")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Delete the models of trials that lost from DVC's cache; their metrics stay."""
    from fieldguide.sweeps.disk import free_models, parse_size
    from fieldguide.sweeps.driver import locked

    sweep = _load(file)
    limit = None if budget is None else parse_size(budget)
    with locked(ROOT, sweep):
        freed = free_models(ROOT, _ranked(sweep), keep_top=keep_top, budget=limit, dry_run=dry_run)
    for one in freed.kept:
        print(f"keep  {one.trials[0].name}")
    print(
        f"{'would free' if dry_run else 'freed'} {freed.size / 1e6:,.1f} MB: {len(freed.files)} "
        f"files of {len(freed.lost)} configurations; their params and metrics stay"
    )


def _refuse_to_overwrite(name: str) -> None:
    """`dvc exp apply` would, without a word. What stages write can be written again."""
    from fieldguide.git import git

    changed = git(ROOT, "diff", "--name-only", "HEAD").split("\n")
    written = ("dvc.lock", "metrics/", "plots/")
    mine = [path for path in changed if path and not path.startswith(written)]
    if mine:
        raise SweepError(
            f"{', '.join(mine)}: changed and not committed, and {name} would replace it; "
            "commit it, or put it away with `git stash`"
        )


def _load(file: Path) -> Sweep:
    from fieldguide.params import load_params
    from fieldguide.sweeps.sweep_file import load_sweep

    return load_sweep(file, load_params())


def _ranked(sweep: Sweep) -> list[Configuration]:
    from fieldguide.sweeps.experiments import read_trials
    from fieldguide.sweeps.ranking import rank

    trials = read_trials(ROOT, sweep.name)
    ranked = rank(trials, metric=sweep.metric, goal=sweep.goal, seeds=sweep.seeds)
    if not ranked:
        raise SweepError(f"{sweep.path}: no trial has finished; fieldguide sweep run {sweep.path}")
    return ranked


Model = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="a classifier's folder or .onnx file; or a stage, version, Git revision or experiment",
    ),
]


@app.command()
def predict(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="files, or folders of them")
    ],
    model: Model = "models/classifier",
    top: Annotated[int, typer.Option(min=1, help="classes to name")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
) -> None:
    """Say what is on photos; exit status 1 if one of them could not be read."""
    from fieldguide.inference import answers
    from fieldguide.inference.classifier import load
    from fieldguide.inference.find import find_model

    if as_json and as_csv:
        raise FieldguideError("--json and --csv: found both; allowed: one of them")
    files = answers.find_photos(photos)
    if not files:
        raise FieldguideError(f"{', '.join(map(str, photos))}: found no photo; allowed: pictures")
    classifier = load(find_model(model))
    write = answers.write_table
    if as_json or as_csv:
        write = answers.write_json if as_json else answers.write_csv
    failed: list[Path] = []
    found = answers.ask(classifier, files, failed)
    write(found, top=min(top, len(classifier.classes)), photos=files)
    if len(files) > 1:
        print(f"{len(files) - len(failed):,} of {len(files):,} photos classified", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command()
def explain(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO")],
    model: Model = "models/classifier",
    label: Annotated[
        str | None, typer.Option("--class", help="what to explain; the most probable by default")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="PNG to write")] = None,
) -> None:
    """Draw which pixels of a photo speak for its class."""
    from fieldguide.files import write_bytes
    from fieldguide.inference.classifier import load
    from fieldguide.inference.find import find_model
    from fieldguide.inference.torch_classifier import TorchClassifier

    classifier = load(find_model(model))
    if not isinstance(classifier, TorchClassifier):
        raise FieldguideError(
            f"--model: found {model}; allowed: a classifier's folder, because an exported one has "
            "no gradients to explain with"
        )
    try:
        picture = classifier.explain(photo, label)
    except ValueError as err:
        raise FieldguideError(f"--class: {err}") from err
    target = output or Path(f"{photo.stem}_explained.png")
    if target.suffix.lower() != ".png":
        raise FieldguideError(f"--output: found {target}; allowed: a name ending in .png")
    write_bytes(target, picture)
    print(printable(str(target)))


@app.command()
def serve(
    model: Model = "models/classifier",
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one")] = 8000,
) -> None:
    """Serve a page, and an HTTP API, that classifies photos and explains the answers."""
    try:
        from fieldguide.inference.server import serve as start
    except ModuleNotFoundError as err:
        raise FieldguideError(
            f"{err.name} is not installed: pip install 'fieldguide[serve]'"
        ) from err
    from fieldguide.inference.card import make_card
    from fieldguide.inference.classifier import load
    from fieldguide.inference.find import find_model

    folder = find_model(model)
    classifier = load(folder)
    # The scores are those of the project that the classifier lies in, if it does.
    metrics = folder.absolute().parent.parent / "metrics" / "test.json"
    start(classifier, make_card(classifier, metrics), host=host, port=port)


@app.command()
def export(
    form: Annotated[Literal["onnx", "torch"], typer.Option("--format", help="of the file")],
    model: Model = "models/classifier",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="the file; else in models/exported/")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="folder to check the result on; else the test split")
    ] = None,
) -> None:
    """Write the classifier as one file for other programs, checked against the original."""
    from fieldguide.inference.export import export as export_to
    from fieldguide.inference.find import find_model

    export_to(find_model(model), form, out=output, photos=photos)


def main() -> None:
    """Run the command; a mistake is a message and exit status 1."""
    try:
        app()
    except BrokenPipeError:  # as by `| head`; nothing is left to say, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except FieldguideError as err:
        print(printable(f"fieldguide: {err}"), file=sys.stderr)
        sys.exit(1)
    except OSError as err:  # as of a folder where nothing may be written
        name = err.filename2 or err.filename
        where = f"{name}: " if name else ""
        print(printable(f"fieldguide: {where}{err.strerror or err}"), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
