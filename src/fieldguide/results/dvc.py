"""DVC: its command line, and the few inner parts of it that this code needs.

Checked with DVC 3.67.1. The inner parts are `dvc.cli.main`, the stage index of `dvc.repo.Repo`, the
modules in MODULES and the layout of the cache.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fieldguide.core.errors import DvcError

# What `dvc exp run` imports, most of it late. A process that imports them ahead can be forked into
# one that runs DVC at once. A module that another version of DVC lacks does no harm.
MODULES = [
    "dulwich.porcelain",
    "dvc.cli.parser",
    "dvc.commands.experiments.run",
    "dvc.data_cloud",
    "dvc.repo.experiments.executor.local",
    "dvc.repo.experiments.queue.celery",
    "dvc.repo.experiments.queue.workspace",
    "dvc.repo.plots",
    "dvc.repo.reproduce",
    "dvc.stage.run",
    "dvc.utils.hydra",
    "dvc_data.index.checkout",
    "hydra._internal.config_loader_impl",
    "scmrepo.git.backend.pygit2.filter",
]


def dvc(root: Path, *arguments: str) -> str:
    """Run `dvc` in `root` and return what it prints.

    Raises:
        DvcError: it fails; the message has DVC's own error.
    """
    done = subprocess.run(  # noqa: S603 - no shell, and arguments of our own
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        raise DvcError(f"dvc {arguments[0]} failed in {root}: {' '.join(errors)}")
    return done.stdout


def main(arguments: list[str]) -> int:
    """Be `dvc` in this process, and return its exit status."""
    from dvc.cli import main  # noqa: PLC0415 - takes a second, and few processes need it

    return int(main(arguments))


def cache_folder(root: Path) -> Path:
    """Return the project's cache, which holds DVC's folders `files` and `runs`."""
    return Path(dvc(root, "cache", "dir").strip())


def cached_file(cache: Path, md5: str) -> Path:
    """Return where a cache keeps the file, or the list of a folder's files, that has this hash."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def cached_dependencies(root: Path, stage: str) -> list[str]:
    """Return the paths of a stage's dependencies that DVC tracks, so that it can push them."""
    from dvc.repo import Repo  # noqa: PLC0415 - takes a second, and few processes need it

    with Repo(str(root)) as repo:
        tracked = {out.fs_path for out in repo.index.outs if out.use_cache}
        named = next(one for one in repo.index.stages if getattr(one, "name", None) == stage)
        return [dep.fs_path for dep in named.deps if dep.fs_path in tracked]


def copy_runs(
    source: Path, target: Path, *, is_wanted: Callable[[Path], bool] | None = None
) -> None:
    """Copy the remembered runs of one cache to another one, which may have some of them already.

    A run is a file runs/<2>/<key>/<value>: what dvc.lock says of one stage. The key is a hash of
    the command, dependencies and params, the value a hash of the outputs too.

    Args:
        source: a cache folder.
        target: another one.
        is_wanted: tells whether to copy a run's file, which the target lacks; one that is not
            wanted is deleted from the source. Without it, every run is copied.
    """
    for file in (source / "runs").glob("*/*/*"):
        copy = target / file.relative_to(source)
        if copy.exists():
            continue
        if is_wanted and not is_wanted(file):
            file.unlink()
            with suppress(OSError):  # other runs have the same key
                file.parent.rmdir()  # DVC cannot read an empty folder of a key
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Not in the key's folder: DVC takes the latest file there, also half of one.
        partial = target / "runs" / f".{file.name}.partial"
        shutil.copy2(file, partial)  # with its time
        partial.replace(copy)
