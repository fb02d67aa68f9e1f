"""`fieldguide review`: decide the classes of doubtful photos in a local page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fieldguide.core.errors import FieldguideError, GitError, StoreError, printable

app = typer.Typer()

_SEED = 0  # of the order of test photos


@app.command()
def review(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]",
            help="folder of data.archive: review its photos that have no class",
        ),
    ] = None,
    *,
    split: Annotated[
        str | None,
        typer.Option(metavar="test", help="review the test photos, in random order"),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL", help="classifier for FOLDER: a folder, .onnx file, or revision"
        ),
    ] = "models/classifier",
    reviewer: Annotated[
        str | None, typer.Option(help="name to write beside decisions; Git's user.name by default")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one")] = 8001,
) -> None:
    """Decide the classes of doubtful photos in a local page.

    Without FOLDER it shows what `fieldguide audit` suspects. Decisions go into the label table.
    """
    try:
        from fieldguide.inference.server import run
    except ModuleNotFoundError as err:
        raise FieldguideError(
            f"{err.name} is not installed: pip install 'fieldguide[serve]'"
        ) from err
    from fieldguide.core.params import load_params
    from fieldguide.core.store import Store
    from fieldguide.prepare.archives import open_archives
    from fieldguide.results.paths import PREPARED
    from fieldguide.review.app import make_app
    from fieldguide.review.label_file import REVIEWED
    from fieldguide.review.label_table import open_project
    from fieldguide.review.queues import audit_queue, folder_queue, random_test_queue
    from fieldguide.review.session import Session

    if split not in (None, "test"):
        raise FieldguideError(f"--split: found {split}; allowed: test")
    if split and folder:
        raise FieldguideError(f"--split test: found {folder}; allowed: without a folder")
    name = _reviewer(reviewer)
    params = load_params().data
    try:
        store = Store(Path(PREPARED))
    except StoreError as err:
        raise FieldguideError(
            f"{err}; if that fails, `dvc checkout prepare` brings back the store of the last run"
        ) from err
    with open_archives(params.archive) as archives:
        project, notes = open_project(params, archives, store, folder)
        table = project.labels.path
        if split:
            queue = random_test_queue(project, _SEED)
        elif folder:
            from fieldguide.inference.find import find_model
            from fieldguide.inference.load import load

            queue = folder_queue(project, load(find_model(model)), folder)
        else:
            queue = audit_queue(project)
        if project.labels.start():
            notes.append(
                f"{table}: each row got the columns {' and '.join(REVIEWED)}; commit that first, "
                "so that `git diff` shows only decisions"
            )
        if project.drawn:
            drawn, them = " or ".join(project.drawn), "it" if len(project.drawn) == 1 else "them"
            notes.append(
                f"{table}: no photo has the split {drawn}, so `prepare` draws {them} from each "
                "class. A photo that you decide may move other photos to another split, or may be "
                "drawn itself. To avoid that, add a column split (docs/review.md)"
            )
        if folder and params.group_columns:
            notes.append(
                f"{table}: a row that is added has no {' and no '.join(params.group_columns)} "
                "(data.group); `prepare` may put such photos of one group in different splits. To "
                "avoid that, fill the columns in"
            )
        session = Session(project, queue, reviewer=name)
        waiting, _, total = session.waiting()
        waits = f"{queue.title}: {len(waiting):,} of {total:,} photos to review"
        _say([*notes, *session.warnings(), waits])
        run(lambda hosts: make_app(session, hosts=hosts), host="127.0.0.1", port=port)


def _say(notes: Sequence[str]) -> None:
    for note in notes:
        print(printable(note))


def _reviewer(given: str | None) -> str:
    """Return the name to write beside decisions."""
    import getpass

    from fieldguide.results.git import git

    name = given
    if name is None:
        try:
            name = git(Path(), "config", "user.name")
        except GitError:  # it is not set, or this is no repository
            name = getpass.getuser()
    name = " ".join(name.split())
    if not name or not name.isprintable():
        raise FieldguideError(f"--reviewer: found {name!r}; allowed: a name")
    return name
