"""Which classifier is meant: a path, a stage of the registry, a revision or an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fieldguide.errors import BundleError
from fieldguide.files import new_folder

if TYPE_CHECKING:
    from dvc.repo import Repo

ARTIFACT = "classifier"  # its name in dvc.yaml
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
    from dvc.repo import Repo  # noqa: PLC0415 - seconds that a path need not wait

    try:
        with Repo(str(root)) as repo:
            rev = _revision(repo, model)
    except Exception as err:  # DVC's, Git's and GTO's own have nothing in common
        raise BundleError(
            f"--model {model}: no such folder, stage, version, revision or experiment ({err})"
        ) from err
    folder = root / ".fieldguide" / "models" / rev
    if not folder.is_dir():
        try:
            _fetch(root, rev, folder)
        except Exception as err:  # nor have those of remotes
            raise BundleError(
                f"--model {model}: {FOLDER} of {rev[:7]} cannot be had from DVC's cache or remote "
                f"({err})"
            ) from err
    return folder


def _revision(repo: Repo, model: str) -> str:
    from dvc.repo.artifacts import ArtifactNotFoundError  # noqa: PLC0415
    from dvc.scm import resolve_rev  # noqa: PLC0415

    for kind in ("stage", "version"):
        try:
            return str(repo.artifacts.get_rev(ARTIFACT, **{kind: model}))
        except ArtifactNotFoundError:
            continue
    return str(resolve_rev(repo.scm, model))


def _fetch(root: Path, rev: str, folder: Path) -> None:
    from dvc.api import DVCFileSystem  # noqa: PLC0415

    with new_folder(folder) as aside:
        DVCFileSystem(str(root), rev=rev).get(f"{FOLDER}/", str(aside), recursive=True)
