"""A workspace for trials: a clone of the project that shares its Git objects and its DVC files.

Each worker has its own, so that no two trials use the same lock, index or files. A slot whose trial
was killed is deleted and made again.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from fieldguide.core.errors import GitError
from fieldguide.core.files import new_folder
from fieldguide.results.dvc import MODULES, cache_folder, cached_file, copy_runs, dvc
from fieldguide.results.git import git, top_of
from fieldguide.results.paths import TIMING, TRAIN_METRICS
from fieldguide.results.revision import load_yaml
from fieldguide.sweeps.experiments import Trial, read_trials
from fieldguide.sweeps.forked import run_dvc
from fieldguide.sweeps.pool import Ended, Reported
from fieldguide.sweeps.space import Scalar, Values
from fieldguide.training.trial import VARIABLE, Channel

TARGET = "train"  # the last stage of a trial: the test set is opened for the winner alone
CACHE = ".fieldguide/cache"  # DVC's cache, in a slot and on a node
_FILES = f"{CACHE}/files"
_SLOT = "FIELDGUIDE_SLOT"  # environment variable that all processes of a slot have
_EXIT = re.compile(r"ERROR: failed to reproduce .*: failed to run: .*, exited with (-?\d+)$")
_LOG_START = "\n--- start ---\n"  # a log holds the output of every start of a trial
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(MODULES)


@dataclass(frozen=True)
class StartingPoint:
    """What every trial of a sweep starts from."""

    baseline: str  # commit; trials are its experiments
    snapshot: str  # commit that also has the uncommitted changes
    subfolder: str  # of the project in the repository: "birds/", or "" for the top folder


def log_file(folder: Path, trial: str) -> Path:
    """Return the file that has, or will have, the output of a trial; `folder` is the sweep's."""
    return folder / "logs" / f"{trial}.log"


class Slot:
    """A worker's workspace, in which one trial runs at a time.

    Beside its folder lie <folder>.json, which names the process of the latest trial, and
    <folder>.channel, where the trial reports; the output goes to logs/<trial>.log. DVC's files are
    the project's, but the run cache is the slot's own.
    """

    def __init__(self, root: Path, folder: Path, starting_point: StartingPoint) -> None:
        """Choose the folders; nothing is written.

        Args:
            root: the project.
            folder: of the clone, whose parent is for all slots.
            starting_point: what trials start from.
        """
        self.root, self.folder, self.starting_point = (
            root.resolve(),
            folder.resolve(),
            starting_point,
        )
        self.project = self.folder / starting_point.subfolder
        self._note = self.folder.with_suffix(".json")
        self._channel = Channel(self.folder.with_suffix(".channel"))
        self._trial = ""  # name of the latest one
        self._process: psutil.Process | None = None
        self._reported: set[int] = set()  # epochs

    @property
    def log(self) -> Path:
        """File with the output of the latest trial."""
        return log_file(self.folder.parent, self._trial)

    def run(self, trial: str, overrides: Values, rungs: list[int], *, env: dict[str, str]) -> None:
        """Start `dvc exp run` for a trial.

        Args:
            trial: name of its experiment.
            overrides: values for keys of params.yaml.
            rungs: epochs after which it asks whether to go on.
            env: environment variables to set.
        """
        try:
            self._reset()
        except GitError:  # damaged, for example by a power cut: a new one has no such fault
            self.discard()
            self._reset()
        self._trial, self._reported = trial, set()
        shutil.rmtree(self._channel.folder, ignore_errors=True)  # of an earlier trial
        self._channel.open(rungs)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(_LOG_START)
        arguments = ["exp", "run", "--name", trial]
        for key, value in overrides.items():
            arguments += ["--set-param", f"{key}={_hydra(value)}"]
        settings = {
            **env,
            VARIABLE: str(self._channel.folder),
            _SLOT: str(self.folder),
            "DVC_EXP_AUTO_PUSH": "false",  # the sweep fetches the experiment; the user pushes it
        }
        child = _FORKS.Process(
            target=run_dvc,
            args=([*arguments, TARGET], self.project, self.log, settings),
            kwargs={"name": trial, "note": self._note},
        )
        child.start()
        assert child.pid is not None
        try:
            self._process = psutil.Process(child.pid)
        except psutil.NoSuchProcess:  # it has ended already
            self._process = None

    def adopt(self) -> str | None:
        """Take up the latest trial, which an earlier driver may have started, and return its name.

        The trial may have ended. None if the slot has had no trial.
        """
        if noted := self._read_note():
            self._trial, self._process = noted
        return self._trial or None

    def _read_note(self) -> tuple[str, psutil.Process | None] | None:
        """Return the latest trial's name, and its process if that still exists."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            name, pid, created = note["name"], note["pid"], note["created"]
        except (OSError, ValueError, LookupError, TypeError):  # none, or damaged
            return None
        try:
            process = psutil.Process(pid)
            # Another process may have got the number meanwhile.
            return name, process if process.create_time() == created else None
        except psutil.NoSuchProcess:
            return name, None

    @property
    def is_running(self) -> bool:
        """Whether DVC still runs the trial."""
        try:
            return self._process is not None and (
                self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False

    def new_epochs(self) -> Iterator[Reported]:
        """Yield what the trial has reported since the last call."""
        for epoch, metrics in self._channel.reports().items():
            if epoch not in self._reported:
                self._reported.add(epoch)
                yield Reported(self._trial, epoch, metrics)

    def answer(self, epoch: int, *, go_on: bool) -> None:
        """Let the trial go on after a rung, or end it there with its best epoch so far."""
        self._channel.answer(epoch, go_on=go_on)

    def end(self) -> Ended:
        """Fetch the experiment of the trial that has ended; if there is none, return the reason."""
        self.kill()  # a killed DVC leaves its stage running
        found = read_trials(self.project, name=self._trial) if self._clone_is_intact() else []
        if found:
            self._fetch(found[0])
            return Ended(self._trial, found[0])
        ended = Ended(self._trial, None, *how_it_failed(self.log))
        if not ended.is_its_own_fault:
            self.discard()
        return ended

    def kill(self) -> None:
        """End every process of this slot, also those without a parent, and keep their results."""
        # DVC first, so that it has no failed stage to clean up after. It was forked, so that its
        # environment does not show the variable; the environment of its children does.
        _, noted = self._read_note() or ("", None)
        dvcs = [process for process in (self._process, noted) if process]
        killed = []
        for process in [*dvcs, *psutil.process_iter()]:
            try:
                if process in dvcs or process.environ().get(_SLOT) == str(self.folder):
                    process.kill()
                    killed.append(process)
            except psutil.Error:  # it has ended meanwhile, or is another user's
                continue
        psutil.wait_procs(killed, timeout=10)
        if self._clone_is_intact():
            copy_runs(self.project / CACHE, self._shared_cache(), is_wanted=self._may_leave_slot)

    def discard(self) -> None:
        """Delete the workspace; the next trial makes a new one."""
        self.kill()
        self._note.unlink(missing_ok=True)
        remove_aside(self.folder)

    def _clone_is_intact(self) -> bool:
        """Return whether the clone is complete; without its .git, Git would use the project's."""
        files = (self.folder / ".git" / "HEAD", self.project / ".dvc" / "config.local")
        return all(file.is_file() for file in files) and (self.project / _FILES).is_symlink()

    def _shared_cache(self) -> Path:
        """Return the project's cache."""
        return (self.project / _FILES).readlink().parent

    def _may_leave_slot(self, run: Path) -> bool:
        """Return whether the project may get a run: not that of a training that was stopped early.

        The params do not tell the two apart. In the project's run cache, DVC would take the result
        of a stopped training for that of the whole one.
        """
        try:
            md5 = {out["path"]: out["md5"] for out in load_yaml(run.read_bytes())["outs"]}
            if TRAIN_METRICS not in md5:  # another stage
                return True
            metrics = cached_file(self.project / CACHE, md5[TRAIN_METRICS])
            return "pruned" not in json.loads(metrics.read_bytes())
        except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):  # damaged
            return False

    def _git(self, *arguments: str, text: str | None = None) -> str:
        # Git must not look for the repository: what these commands reset must be the clone.
        clone = (f"--git-dir={self.folder / '.git'}", f"--work-tree={self.folder}")
        return git(self.folder, *clone, *arguments, text=text)

    def _fetch(self, trial: Trial) -> None:
        """Bring a finished trial's experiment into the project."""
        git(
            self.root,
            *("fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head"),
            str(self.folder),
            f"{trial.ref}:{trial.ref}",
        )

    def _reset(self) -> None:
        """Bring the workspace to the sweep's start; data that DVC has linked stays."""
        if not self._clone_is_intact():
            self._make()
        copy_runs(self._shared_cache(), self.project / CACHE)
        refs = self._git("for-each-ref", "--format=delete %(refname)", "refs/exps/")
        if refs:
            self._git("update-ref", "--no-deref", "--stdin", text=refs)
        self._git("reset", "--quiet", "--soft", self.starting_point.baseline)
        # The uncommitted changes are staged, so that new files are part of the trial too.
        self._git("read-tree", "--reset", "-u", self.starting_point.snapshot)
        self._git("clean", "--quiet", "--force", "-d")
        # Test scores and seconds in Git are the baseline's.
        for path in [*_outputs_of_later_stages(self.project), TIMING]:
            remove_aside(self.project / path)

    def _make(self) -> None:
        """Clone the repository that the project lies in, with a run cache of its own."""
        remove_aside(self.folder)
        with new_folder(self.folder) as clone:
            top = str(top_of(self.root))
            git(clone, "clone", "--quiet", "--shared", "--no-checkout", top, ".")
            git(clone, "checkout", "--quiet", "--detach", self.starting_point.baseline)
            project = clone / self.starting_point.subfolder
            local = self.root / ".dvc" / "config.local"  # credentials of remotes
            if local.is_file():
                shutil.copy(local, project / ".dvc" / "config.local")
            _link(project / _FILES, cache_folder(self.root) / "files")
            dvc(project, "config", "--local", "cache.dir", CACHE)
            # Interrupted trainings go on in any slot, and features are computed once.
            for name in (".fieldguide/resume", ".fieldguide/features"):
                _link(project / name, self.root / name)


def _link(link: Path, folder: Path) -> None:
    for one in (folder, link.parent):
        one.mkdir(parents=True, exist_ok=True)
    link.symlink_to(folder)


def _outputs_of_later_stages(project: Path) -> set[str]:
    """Return what the stages after TARGET write, by dvc.lock."""
    lock = project / "dvc.lock"
    stages = load_yaml(lock.read_bytes())["stages"] if lock.is_file() else {}
    read = {name: [Path(dep["path"]) for dep in stages[name].get("deps", [])] for name in stages}
    written = {name: [out["path"] for out in stages[name].get("outs", [])] for name in stages}
    found = written.pop(TARGET, [])
    later = set[str]()
    for out in found:  # grows meanwhile
        for name in list(written):
            if any(dep.is_relative_to(out) or Path(out).is_relative_to(dep) for dep in read[name]):
                found += written[name]
                later.update(written.pop(name))
    return later


def how_it_failed(log: Path) -> tuple[int | None, str]:
    """Return the stage's exit status, as DVC logged it last, and the last line before that.

    The status is negative for a signal, and None if the stage did not end.
    """
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    text = text.rpartition(_LOG_START)[2]
    lines: list[str] = []
    status, failed_after = None, 0
    for line in text.splitlines():
        if match := _EXIT.search(line):
            status, failed_after = int(match[1]), len(lines)
        elif line.strip():
            lines.append(line.strip())
    before = lines[:failed_after] if status is not None else lines
    return status, before[-1] if before else "its log is empty"


def remove_aside(path: Path) -> None:
    """Remove a file or folder.

    A folder is renamed first, so that a killed process leaves no partial folder under its name.
    """
    aside = path.with_name(f".{path.name}.trash")
    shutil.rmtree(aside, ignore_errors=True)  # left by a kill
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path.rename(aside), ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _hydra(value: Scalar) -> str:
    """Write a value as `dvc exp run --set-param` reads it."""
    if not isinstance(value, str):
        return json.dumps(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
