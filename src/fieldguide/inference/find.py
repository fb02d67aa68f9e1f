"""Find the classifier that a user names: a path, or what another revision of the project holds."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fieldguide.core.errors import BundleError, FieldguideError, RevisionError
from fieldguide.core.files import new_folder
from fieldguide.results.paths import MODEL

if TYPE_CHECKING:
    from fieldguide.results.revision import Revision


def find_model(model: str, root: Path = Path()) -> Path:
    """Return the folder of a classifier, fetching one that is not in the workspace.

    A stage or version of the model registry (GTO's Git tags) takes precedence over a branch of the
    same name. What was fetched from DVC's cache or remote stays in `.fieldguide/models/`.

    Args:
        model: a path; or a stage (prod), version (v1.2.0), Git revision or DVC experiment.
        root: the project's folder.

    Raises:
        BundleError: there is none, or it cannot be fetched.
    """
    path = Path(model)
    if path.exists() or path.suffix == ".onnx" or model == MODEL:
        return path
    # Not at the top: the reader takes a while to import, and a path does not need it.
    from fieldguide.results.revision import find_revision  # noqa: PLC0415

    try:
        revision = find_revision(model, root)
        if revision.rev is None:
            return root / MODEL
        folder = root / ".fieldguide" / "models" / revision.rev
        if not folder.is_dir():
            _fetch(revision, folder)
    except FieldguideError as err:
        raise BundleError(f"--model {model}: no such folder; {err}") from err
    return folder


def _fetch(revision: Revision, folder: Path) -> None:
    from fieldguide.results.results import Results  # noqa: PLC0415

    results = Results(revision)
    with new_folder(folder) as aside:
        for path, md5sum in results.folder(MODEL).items():
            file = aside / PurePosixPath(path).relative_to(MODEL)
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                file.write_bytes(revision.fetch(path, md5sum))
            except RevisionError as err:
                raise RevisionError(f"{path} of {revision.label}: {err}") from err
