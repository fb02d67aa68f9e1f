"""Rebuild a revision in a temporary clone, without any cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fieldguide.core.errors import DvcError
from fieldguide.results.dvc import cache_folder, cached_dependencies, dvc, write_local_config
from fieldguide.results.git import clone_shared, environment, subfolder_of
from fieldguide.results.results import Lock

_CACHE_AS_REMOTE = "fieldguide-verify"
# An outer DVC or torchrun sets these; a rebuild must not take part in their work.
_OUTER = ("DVC_ROOT", "DVC_EXP", "DVC_STAGE", "TORCHELASTIC_", "RANK", "WORLD_SIZE")


def clone(root: Path, commit: str, folder: Path) -> Path:
    """Clone the repository of a project into an empty folder, and check out a commit.

    The clone has the project's DVC config, but an empty cache of its own.

    Returns:
        The project in the clone.

    Raises:
        DvcError: the commit is no DVC project.
    """
    # All refs, because the commit may be that of an experiment.
    clone_shared(root, folder, commit, refs="+refs/*:refs/original/*")
    project = folder / subfolder_of(root)
    if not (project / ".dvc" / "config").is_file():
        raise DvcError(f"{commit[:7]}: has no file .dvc/config; allowed: a commit of a DVC project")
    write_local_config(project, root, cache="cache")
    return project


def fetch_inputs(root: Path, project: Path, lock: Lock) -> None:
    """Bring what stages read and DVC tracks, from the cache of the project or the DVC remote.

    Raises:
        DvcError: neither has it.
    """
    written = {str(project / path) for path in lock.outputs}
    found = {path for stage in lock.deps for path in cached_dependencies(project, stage)}
    inputs = sorted(found - written)
    if not inputs:
        return
    cache = str(cache_folder(root).resolve())
    dvc(project, "remote", "add", "--local", "--force", _CACHE_AS_REMOTE, cache)
    try:
        dvc(project, "pull", "--remote", _CACHE_AS_REMOTE, *inputs)
    except DvcError:
        dvc(project, "pull", *inputs)


def rebuild(project: Path) -> None:
    """Run every stage of a project; what they print goes to stderr.

    The stages end with this process, however it ends.

    Raises:
        DvcError: a stage fails.
    """
    env = {name: value for name, value in environment().items() if not name.startswith(_OUTER)}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    guard = (sys.executable, "-m", "fieldguide.results.guard")
    with subprocess.Popen(  # noqa: S603 - no shell, and arguments of our own
        [*guard, sys.executable, "-m", "dvc", "repro", "--force"],
        cwd=project,
        env=env,
        stdin=subprocess.PIPE,
        stdout=sys.stderr,
    ) as process:
        if process.wait() != 0:
            raise DvcError("the revision cannot be rebuilt; the messages above say why")
