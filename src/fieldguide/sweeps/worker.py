"""A worker: a clone of the project, in which `dvc exp run` trains one run of a sweep at a time.

Each worker has a clone of its own, so that no two runs use the same lock, index or files. It shares
the project's Git objects and DVC's cache, and with that the run cache.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

import fieldguide
from fieldguide.core.errors import GitError
from fieldguide.core.files import new_folder
from fieldguide.core.stage import EXIT_NO_ROOM
from fieldguide.results.dvc import write_local_config
from fieldguide.results.git import clone_shared, git
from fieldguide.results.paths import TIMING
from fieldguide.results.revision import load_yaml
from fieldguide.sweeps.space import Run, Value

TARGET = "train"  # the last stage of a run: the test set is opened for the winner alone
BEFORE = {"prepare"}  # the stages that TARGET follows
CACHE = ".fieldguide/cache"  # in a clone: a link to DVC's cache
_CLONE = "FIELDGUIDE_CLONE"  # environment variable that all processes of a clone have
_EXIT = re.compile(r"ERROR: failed to reproduce .*: failed to run: .*, exited with (-?\d+)$")
_NO_CAUSE = ("Having any troubles?", "hint: ")  # beginnings of DVC's and Git's last lines
_LOG_START = "\n--- start ---\n"  # a log holds the output of every start of a run


@dataclass(frozen=True)
class StartingPoint:
    """The commit that every run of a sweep starts from."""

    baseline: str  # commit; the runs are its experiments
    snapshot: str  # commit that also has the uncommitted changes
    subfolder: str  # of the project in the repository: "birds/", or "" for the top folder
    user: str  # name of the author of commits
    email: str

    @property
    def refs(self) -> str:
        """The folder of Git's refs in which DVC keeps the experiments."""
        return refs_of(self.baseline)


def refs_of(baseline: str) -> str:
    """Return the folder of Git's refs with the experiments of a baseline."""
    return f"refs/exps/{baseline[:2]}/{baseline[2:]}/"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: as an experiment, or for the reason in `message`."""

    commit: str | None = None  # of the experiment
    status: int | None = None  # of its stage, negative for a signal; None: it did not end
    message: str = ""
    node_failed: bool = False  # the node lacks something, which says nothing about the run

    @property
    def is_its_own_fault(self) -> bool:
        """True if retrying cannot help, because the stage rejected the run's params."""
        status = self.status
        return status is not None and 0 < status < 128 and status != EXIT_NO_ROOM  # noqa: PLR2004


class Clone:
    """The workspace of one worker.

    The output of each run goes to `log`, which also has that of its earlier starts.
    """

    def __init__(self, root: Path, folder: Path, start: StartingPoint, cache: Path) -> None:
        """Choose the folders; nothing is written.

        Args:
            root: the project.
            folder: of the clone.
            start: what runs start from.
            cache: DVC's cache of the project.
        """
        self.root, self.folder, self.start = root.resolve(), folder.resolve(), start
        self.project = self.folder / start.subfolder
        self._cache = cache.resolve()
        self._git_of_clone = (f"--git-dir={self.folder / '.git'}", f"--work-tree={self.folder}")
        self._guard: subprocess.Popen[bytes] | None = None  # of the running DVC
        self._stopped = False

    def run(self, run: Run, *, log: Path, checkpoint: Path, env: dict[str, str]) -> Outcome:
        """Train a run by `dvc exp run`, and return how it ended.

        Args:
            run: what to train.
            log: file that gets the output.
            checkpoint: folder where the configuration's training goes on, and is kept.
            env: environment variables to set.
        """
        try:
            self._reset()
        except GitError:  # damaged, for example by a power cut: a new clone has no such fault
            self._make()
            self._reset()
        _link(self.project / ".fieldguide" / "resume", checkpoint)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            output.write(_LOG_START.encode())
            output.flush()
            self._run_dvc(run, output, env)
        ref = self.start.refs + run.name
        if commit := self._git("for-each-ref", "--format=%(objectname)", ref).strip():
            return Outcome(commit, status=0)
        outcome = Outcome(None, *how_it_failed(log))
        if not outcome.is_its_own_fault:
            remove(self.folder)  # a killed DVC may have left it in any state
        return outcome

    def _run_dvc(self, run: Run, output: IO[bytes], env: dict[str, str]) -> None:
        """Run DVC's command line until it ends, or `stop` ends it."""
        command = ["exp", "run", "--name", run.name]
        for key, value in run.overrides.items():
            command += ["--set-param", f"{key}={_as_hydra(value)}"]
        own_code = str(Path(fieldguide.__file__).resolve().parents[1])
        self._guard = subprocess.Popen(
            [
                *(sys.executable, "-m", "fieldguide.results.guard"),
                *(sys.executable, "-m", "dvc", *command, TARGET),
            ],
            cwd=self.project,
            env={
                **os.environ,
                **env,
                _CLONE: str(self.folder),
                "DVC_EXP_AUTO_PUSH": "false",  # the sweep fetches the experiment
                # `python` of dvc.yaml is this one, also if its environment is not activated.
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                "PYTHONPATH": os.pathsep.join(
                    filter(None, [own_code, os.environ.get("PYTHONPATH")])
                ),
            },
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the driver
        )
        if self._stopped:  # before there was a guard
            self.stop()
        self._guard.wait()
        assert self._guard.stdin is not None
        self._guard.stdin.close()

    def stop(self) -> None:
        """End the run that is going on, and start no other; what is not finished is lost."""
        self._stopped = True
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()

    def fetch(self, run: Run) -> None:
        """Bring the experiment of a run into the project, in place of that of an earlier rung."""
        ref = self.start.refs + run.name
        options = ("--quiet", "--force", "--no-tags", "--no-write-fetch-head")
        git(self.root, "fetch", *options, str(self.folder), f"{ref}:{ref}")

    def _git(self, *arguments: str, text: str | None = None) -> str:
        # Git must not look for a repository: without this one, it would find the project's.
        return git(self.folder, *self._git_of_clone, *arguments, text=text)

    def _reset(self) -> None:
        """Bring the workspace to the sweep's start; data that DVC has linked stays."""
        if not (self.project / ".dvc" / "config.local").is_file():
            self._make()
        refs = self._git("for-each-ref", "--format=delete %(refname)", "refs/exps/")
        if refs:
            self._git("update-ref", "--no-deref", "--stdin", text=refs)
        self._git("reset", "--quiet", "--soft", self.start.baseline)
        # The uncommitted changes are staged, so that new files are part of the run too.
        self._git("read-tree", "--reset", "-u", self.start.snapshot)
        self._git("clean", "--quiet", "--force", "-d")
        # Test scores and seconds in Git are the baseline's.
        lock = self.project / "dvc.lock"
        stages = load_yaml(lock.read_bytes())["stages"] if lock.is_file() else {}
        later = [stages[name] for name in stages.keys() - BEFORE - {TARGET}]
        outs = [out["path"] for stage in later for out in stage.get("outs", [])]
        for path in [*outs, TIMING]:
            remove(self.project / path)

    def _make(self) -> None:
        """Clone the repository that the project lies in."""
        remove(self.folder)
        with new_folder(self.folder) as clone:
            refs = "+refs/fieldguide/*:refs/fieldguide/*"
            clone_shared(self.root, clone, self.start.baseline, refs=refs)
            git(clone, "config", "user.name", self.start.user)
            git(clone, "config", "user.email", self.start.email)
            project = clone / self.start.subfolder
            _link(project / CACHE, self._cache)
            # Features are computed once for all clones.
            _link(project / ".fieldguide" / "features", self.root / ".fieldguide" / "features")
            write_local_config(project, self.root, cache=f"../{CACHE}")


def end_left_processes(folder: Path) -> None:
    """End the processes of all clones in a folder, which a killed driver has left.

    The guard ends them; this is for a guard that was killed itself.
    """
    killed = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended meanwhile, or is another user's
            if process.environ().get(_CLONE, "").startswith(f"{folder.resolve()}{os.sep}"):
                process.kill()
                killed.append(process)
    psutil.wait_procs(killed, timeout=10)


def how_it_failed(log: Path) -> tuple[int | None, str]:
    """Return the stage's exit status, as DVC logged it last, and the cause that was logged last.

    The status is negative for a signal, and None if the stage did not end. The cause is the last
    line before DVC tells the status; without a status, DVC's own error.
    """
    text = log.read_text(encoding="utf-8", errors="replace").rpartition(_LOG_START)[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_NO_CAUSE)]
    for place in range(len(lines) - 1, -1, -1):
        if match := _EXIT.search(lines[place]):
            return int(match[1]), (lines[:place] or ["it printed nothing"])[-1]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return None, ([*lines[-1:], *errors] or ["its log is empty"])[-1]


def _link(link: Path, folder: Path) -> None:
    """Make a symbolic link to a folder, in place of an older link; both parents are made."""
    for one in (folder, link.parent):
        one.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(folder)


def remove(path: Path) -> None:
    """Remove a file or folder.

    A folder is renamed first, so that a killed process leaves no partial folder under its name.
    """
    aside = path.with_name(f".{path.name}.trash")
    shutil.rmtree(aside, ignore_errors=True)  # left by a kill
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path.rename(aside), ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _as_hydra(value: Value) -> str:
    """Write a value as `dvc exp run --set-param` reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(_as_hydra, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
