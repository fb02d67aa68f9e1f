"""A workspace for trials: a clone of the project that shares its Git objects and its DVC cache.

Each worker has one of its own, so that no two trials meet in a lock, an index or a workspace, and
one that was killed is thrown away and made again.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from dvc.config import Config
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro
from dvc.stage.cache import _get_cache_hash, _get_stage_hash
from dvc.stage.serialize import to_single_stage_lockfile

from fieldguide.core.errors import GitError, SweepError
from fieldguide.results.git import git
from fieldguide.sweeps.experiments import Trial, read_trials
from fieldguide.sweeps.forked import DVC_MODULES, run_dvc
from fieldguide.sweeps.space import Scalar, Values

TARGET = "train"  # trials end here: the test set is the winner's alone
_SLOT = "FIELDGUIDE_SLOT"  # set for all processes of a slot, and found by it
_EXIT = re.compile(r"ERROR: failed to reproduce .*: failed to run: .*, exited with (-?\d+)$")
_START = "\n--- start ---\n"  # in a log that holds the output of several starts
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(DVC_MODULES)


@dataclass(frozen=True)
class Start:
    """What all trials of a sweep begin with."""

    baseline: str  # commit; trials are its experiments
    snapshot: str  # commit that also has what was changed and not committed


def check_project(root: Path) -> None:
    """Refuse to work anywhere but in the top folder of a Git and DVC project.

    Raises:
        SweepError: it is another folder.
    """
    if not ((root / ".git").exists() and (root / ".dvc").is_dir()):
        raise SweepError(f"{root}: is not the top folder of a Git and DVC project")


def take_snapshot(root: Path, sweep: str) -> Start:
    """Remember the workspace as it is, as `dvc exp run --queue` does.

    Raises:
        SweepError: the repository has no commit.
    """
    try:
        baseline = git(root, "rev-parse", "--verify", "HEAD").strip()
    except GitError as err:
        raise SweepError(f"{root}: has no commit yet, and experiments need one") from err
    git(root, "status")  # refreshes the index, without which `stash create` may fail
    snapshot = git(root, "stash", "create").strip() or baseline
    git(root, "update-ref", f"refs/fieldguide/{sweep}", snapshot)  # keeps it from `git gc`
    return Start(baseline, snapshot)


class Slot:
    """One worker's workspace; its files lie in `folder`, beside which `<folder>.json` is kept."""

    def __init__(self, root: Path, folder: Path, start: Start) -> None:
        self.root, self.folder, self.start = root.resolve(), folder.resolve(), start
        self._note = folder.resolve().with_suffix(".json")

    def run(
        self, name: str, overrides: Values, *, log: Path, env: dict[str, str]
    ) -> psutil.Process | None:
        """Start `dvc exp run` for one trial and return its process; None if it is gone already.

        Args:
            name: of the experiment.
            overrides: keys of params.yaml.
            log: where its output goes, behind what is there.
            env: variables to set.
        """
        try:
            self._reset()
        except GitError:  # damaged, as by a power cut: a new one has no such fault
            self.discard()
            self._reset()
        with log.open("a", encoding="utf-8") as file:
            file.write(_START)
        arguments = ["exp", "run", "--name", name]
        for key, value in overrides.items():
            arguments += ["--set-param", f"{key}={_hydra(value)}"]
        settings = {
            **env,
            _SLOT: str(self.folder),
            "DVC_EXP_AUTO_PUSH": "false",  # the sweep fetches it; pushing is the user's
        }
        child = _FORKS.Process(
            target=run_dvc,
            args=([*arguments, TARGET], self.folder, log.resolve(), settings),
            kwargs={"name": name, "note": self._note},
        )
        child.start()
        assert child.pid is not None
        try:
            return psutil.Process(child.pid)
        except psutil.NoSuchProcess:
            return None

    def running(self) -> tuple[str, psutil.Process | None] | None:
        """Return the last trial's name, and its process if that still runs."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            name, pid, created = note["name"], note["pid"], note["created"]
        except (OSError, ValueError, LookupError, TypeError):  # none, or damaged
            return None
        try:
            process = psutil.Process(pid)
            # Another process may have got the number meanwhile.
            same = process.create_time() == created and is_running(process)
        except psutil.NoSuchProcess:
            same = False
        return name, process if same else None

    def kill(self) -> None:
        """End every process of this slot, however it was orphaned."""
        _, dvc = self.running() or ("", None)
        # DVC first, so that it has no failed stage to tidy up after. It was forked, so that its
        # own environment is not to be seen; what it starts shows it.
        killed = []
        for process in [*([dvc] if dvc else []), *psutil.process_iter()]:
            try:
                if process == dvc or process.environ().get(_SLOT) == str(self.folder):
                    process.kill()
                    killed.append(process)
            except psutil.Error:  # gone meanwhile, or another user's
                continue
        psutil.wait_procs(killed, timeout=10)

    def discard(self) -> None:
        """Throw the workspace away; the next run makes a new one."""
        self.kill()
        self._note.unlink(missing_ok=True)
        remove_aside(self.folder)

    def finished(self, name: str) -> Trial | None:
        """Return the trial of that name, if DVC has recorded its experiment here."""
        trials = read_trials(self.folder, name=name) if self._is_whole() else []
        return trials[0] if trials else None

    def _is_whole(self) -> bool:
        """Whether the clone is there: without its own .git, Git would take the project's."""
        return all((self.folder / name).is_file() for name in (".git/HEAD", ".dvc/config.local"))

    def _git(self, *arguments: str, text: str | None = None) -> str:
        # Named, and not looked for: what these commands reset must be the clone.
        place = (f"--git-dir={self.folder / '.git'}", f"--work-tree={self.folder}")
        return git(self.folder, *place, *arguments, text=text)

    def hand_over(self, trial: Trial) -> None:
        """Fetch a finished trial's experiment into the project."""
        if trial.pruned:
            self._forget_run()
        git(
            self.root,
            *("fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head"),
            str(self.folder),
            f"{trial.ref}:{trial.ref}",
        )

    def _reset(self) -> None:
        """Bring the workspace to the sweep's start, keeping data that is linked already."""
        if not self._is_whole():
            remove_aside(self.folder)
            self._make()
        refs = self._git("for-each-ref", "--format=delete %(refname)", "refs/exps/")
        if refs:
            self._git("update-ref", "--no-deref", "--stdin", text=refs)
        self._git("reset", "--quiet", "--soft", self.start.baseline)
        # What was changed is staged, so that new files are part of the trial too.
        self._git("read-tree", "--reset", "-u", self.start.snapshot)
        self._git("clean", "--quiet", "--force", "-d")
        for path in self._not_of_trials:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _make(self) -> None:
        aside = self.folder.with_name(f".{self.folder.name}.partial")
        remove_aside(aside)
        aside.parent.mkdir(parents=True, exist_ok=True)
        git(self.root, "clone", "--quiet", "--shared", "--no-checkout", str(self.root), str(aside))
        git(aside, "checkout", "--quiet", "--detach", self.start.baseline)
        local = self.root / ".dvc" / "config.local"  # credentials of remotes
        if local.is_file():
            shutil.copy(local, aside / ".dvc" / "config.local")
        with Repo(str(self.root)) as repo:
            cache = str(Path(repo.cache.local.path).resolve().parents[1])
        with Config(str(aside / ".dvc")).edit("local") as config:
            config["cache"]["dir"] = cache
        # Interrupted trainings go on in whichever slot is free; features are computed once.
        (aside / ".fieldguide").mkdir()
        for name in ("resume", "features"):
            shared = self.root / ".fieldguide" / name
            shared.mkdir(parents=True, exist_ok=True)
            (aside / ".fieldguide" / name).symlink_to(shared)
        aside.rename(self.folder)

    @cached_property
    def _not_of_trials(self) -> list[Path]:
        """What later stages keep in Git, such as test scores, and seconds: the baseline's."""
        with Repo(str(self.folder)) as repo:
            before = plan_repro(repo.index.graph, [_target(repo)])
            outs = [out for stage in repo.index.stages if stage not in before for out in stage.outs]
            paths = [Path(out.fs_path) for out in outs if not out.use_cache]
        return [*paths, self.folder / "metrics" / "timing.json"]

    def _forget_run(self) -> None:
        """Take the last run of TARGET out of DVC's run cache.

        The same params must not be answered with a training that was stopped early, which they do
        not say.
        """
        with Repo(str(self.folder)) as repo:
            stage = _target(repo)
            key, value = _get_stage_hash(stage), _get_cache_hash(to_single_stage_lockfile(stage))
            path = Path(repo.stage_cache.cache_dir, key[:2], key, value)
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: other results of the same params
                path.parent.rmdir()  # DVC stumbles over an empty one


def how_it_failed(log: Path) -> tuple[int | None, str]:
    """Return the stage's exit status, as DVC logged it last, and the last line before that.

    The status is negative for a signal, and None where the stage did not end.
    """
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    text = text.rpartition(_START)[2]
    lines: list[str] = []
    status, break_at = None, 0
    for line in text.splitlines():
        if match := _EXIT.search(line):
            status, break_at = int(match[1]), len(lines)
        elif line.strip():
            lines.append(line.strip())
    before = lines[:break_at] if status is not None else lines
    return status, before[-1] if before else "its log is empty"


def _target(repo: Repo) -> Any:
    # Not by repo.stage, which looks in the working directory's dvc.yaml.
    return next(stage for stage in repo.index.stages if getattr(stage, "name", None) == TARGET)


def remove_aside(path: Path) -> None:
    """Remove a folder or file; at no moment is there half of it under its own name."""
    aside = path.with_name(f".{path.name}.trash")
    for one in (aside, path):
        if one.is_dir() and not one.is_symlink():
            if one == path:
                one = one.rename(aside)  # noqa: PLW2901
            shutil.rmtree(one, ignore_errors=True)
        else:
            one.unlink(missing_ok=True)


def is_running(process: psutil.Process | None) -> bool:
    """Whether it still runs; one that waits to be reaped does not."""
    if process is None:
        return False
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _hydra(value: Scalar) -> str:
    """Write a value as `dvc exp run --set-param` reads it."""
    if not isinstance(value, str):
        return json.dumps(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
