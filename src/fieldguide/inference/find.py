"""Which classifier is meant: a path, a stage of the registry, a revision or an experiment."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fieldguide.core.errors import BundleError, RevisionError
from fieldguide.core.files import new_folder

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

    from fieldguide.results.revision import Revision

FOLDER = "models/classifier"


def find_model(model: str, root: Path = Path()) -> Path:
    """Return the folder of a classifier, fetching one that is not in the workspace.

    A stage or version of the model registry (GTO's Git tags) goes before a branch of its name. What
    was fetched, from DVC's cache or remote, stays in `.fieldguide/models/`.

    Args:
        model: a path; or a stage (prod), version (v1.2.0), Git revision or DVC experiment.
        root: the project.

    Raises:
        BundleError: there is none, or it cannot be fetched.
    """
    path = Path(model)
    if path.exists() or path.suffix == ".onnx" or model == FOLDER:
        return path
    from fieldguide.results.revision import find_revision  # noqa: PLC0415 - only where one is asked for

    try:
        revision = find_revision(model, root)
    except RevisionError as err:
        raise BundleError(f"--model {model}: no such folder; {err}") from err
    if revision.rev is None:
        return root / FOLDER
    folder = root / ".fieldguide" / "models" / revision.rev
    if not folder.is_dir():
        try:
            _fetch(revision, folder)
        except Exception as err:  # remotes' own have nothing in common
            raise BundleError(
                f"--model {model}: {FOLDER} of {revision.rev[:7]} cannot be had from DVC's cache "
                f"or remote ({err})"
            ) from err
    return folder


def _fetch(revision: Revision, folder: Path) -> None:
    from dvc.api import DVCFileSystem  # noqa: PLC0415

    project = DVCFileSystem(str(revision.root), rev=revision.rev)
    with new_folder(folder) as aside:
        project.get(f"{FOLDER}/", str(aside), recursive=True)
        for path, md5 in _files(revision, project).items():  # DVC takes what the remote gives
            file = aside / PurePosixPath(path).relative_to(FOLDER)
            with file.open("rb") as data:
                found = hashlib.file_digest(data, partial(hashlib.md5, usedforsecurity=False))
            if found.hexdigest() != md5:
                raise BundleError(f"{path} is damaged there; `fieldguide remote verify` says more")


def _files(revision: Revision, project: DVCFileSystem) -> dict[str, str]:
    if FOLDER in revision.outs():
        return revision.files(FOLDER)
    found = project.find(FOLDER, detail=True, dvc_only=True)  # of `dvc add`
    return {path: one["dvc_info"]["md5"] for path, one in found.items()}
