"""Rebuild a revision in a temporary clone, without any cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from fieldguide.core.errors import DvcError
from fieldguide.results.dvc import cache_folder, cached_dependencies, dvc
from fieldguide.results.git import git, subfolder_of, top_of
from fieldguide.results.revision import load_yaml

_CACHE_AS_REMOTE = "cache-of-the-project"


def clone(root: Path, commit: str, folder: Path) -> Path:
    """Clone the repository of a project into an empty folder, and check out a commit.

    The clone has the project's DVC config, but an empty cache of its own.

    Returns:
        The project in the clone.
    """
    top = str(top_of(root))
    git(folder, "clone", "--quiet", "--shared", "--no-checkout", top, ".")
    # A shallow repository shares no objects, and the commit may be that of an experiment.
    git(folder, "fetch", "--quiet", top, "+refs/*:refs/original/*")
    git(folder, "checkout", "--quiet", "--detach", commit)
    project = folder / subfolder_of(root)
    config = root / ".dvc" / "config.local"
    if config.is_file():
        shutil.copyfile(config, project / ".dvc" / "config.local")
    dvc(project, "config", "--local", "cache.dir", "cache")
    return project


def fetch_inputs(root: Path, project: Path) -> None:
    """Bring what stages read and DVC tracks, from the cache of the project or the DVC remote.

    Raises:
        DvcError: neither has it.
    """
    stages = load_yaml((project / "dvc.yaml").read_bytes())["stages"]
    inputs = sorted({dep for stage in stages for dep in cached_dependencies(project, stage)})
    written = {project / out for stage in stages.values() for out in stage.get("outs", ())}
    inputs = [path for path in inputs if Path(path) not in written]
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

    Raises:
        DvcError: a stage fails.
    """
    python = str(Path(sys.executable).parent)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--force"],
        cwd=project,
        env={**os.environ, "PATH": os.pathsep.join([python, os.environ["PATH"]])},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode != 0:
        raise DvcError("the revision cannot be rebuilt; the messages above say why")
