"""Run a sweep: what the record wants becomes DVC experiments, several at a time, and none is lost.

The record (record.py) says what is wanted and what has ended; a finished run is an experiment in
Git. Everything else may be lost at any moment, and the same command goes on. Where runs are trained
is the pool's business (local.py, cluster.py).
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from fieldguide.core.errors import GitError, SweepError
from fieldguide.core.output import counted
from fieldguide.core.params import Params
from fieldguide.results.git import git, subfolder_of
from fieldguide.sweeps.experiments import missing, read_result
from fieldguide.sweeps.local import Pool, log_file
from fieldguide.sweeps.progress import Progress
from fieldguide.sweeps.record import Record
from fieldguide.sweeps.space import Run, Sweep
from fieldguide.sweeps.worker import Outcome, StartingPoint

_MOST_STARTS = 6  # of a run that ends for a reason other than its params
_REFRESH = 0.5  # seconds between two looks at what runs
OpenPool = Callable[[Path, StartingPoint], Pool]


def state_folder(root: Path, sweep: str) -> Path:
    """Return where a sweep keeps logs, clones and checkpoints of unfinished configurations."""
    return root / ".fieldguide" / "sweeps" / sweep


def run_sweep(
    root: Path, sweep: Sweep, base: Params, open_pool: OpenPool, checkpoints: int | None = None
) -> bool:
    """Go on with a sweep, or begin it, until every configuration has ended.

    Args:
        root: the project.
        sweep: what is searched.
        base: params.yaml's values.
        open_pool: makes the pool of workers from the sweep's state folder and starting point.
        checkpoints: how many configurations of each rung keep their checkpoints; None for all that
            may still be promoted.

    Returns:
        Whether all runs finished, none having failed.

    Raises:
        SweepError: `root` is no DVC project or has no commit, another driver runs the sweep, or its
            record is of another search.
        KeyboardInterrupt: on Ctrl-C, with the running trials stopped.
    """
    if not (root / ".dvc").is_dir():
        raise SweepError(f"{root}: has no folder .dvc; allowed: a DVC project in a Git repository")
    with locked(root, sweep), _terminate_as_interrupt():
        identity = _check_git(root, base)
        record = Record(sweep, base)
        if "baseline" not in record.facts:
            baseline, snapshot = take_snapshot(root, sweep.name)
            record.keep("snapshot", snapshot)
            record.keep("baseline", baseline)
        facts = record.facts
        _check_is_here(root, record, facts["baseline"], facts["snapshot"])
        start = StartingPoint(facts["baseline"], facts["snapshot"], subfolder_of(root), *identity)
        try:
            pool = open_pool(state_folder(root, sweep.name), start)
        except SweepError:
            if record.proposed == 0:  # it may begin from another commit, with other params
                record.path.unlink()
            raise
        return Driver(root, record, pool, checkpoints).run()


class Driver:
    """Starts the runs that the record wants, and records how they end."""

    def __init__(self, root: Path, record: Record, pool: Pool, checkpoints: int | None) -> None:
        self.root, self.record, self.pool, self.checkpoints = root, record, pool, checkpoints
        self.running: dict[Future[Outcome], Run] = {}
        self.starts: Counter[tuple[int, int, int]] = Counter()  # of each run, by this driver
        self.progress = Progress(record)
        self.folder = state_folder(root, record.sweep.name)

    def run(self) -> bool:
        """Run the sweep to its end; return whether no run failed."""
        self.progress.start()
        try:
            self._put_back_missing()
            self._fill()
            while self.running:
                done, _ = wait(self.running, _REFRESH, FIRST_COMPLETED)
                for future in done:
                    self._collect(self.running.pop(future), future.result())
                self._fill()
                self.progress.update(len(self.running))
        except BaseException:
            self.pool.stop()
            self.progress.stop()
            raise
        self.pool.close()
        self.progress.finish()
        return not self.record.failed

    def _put_back_missing(self) -> None:
        """Put back the finished runs whose experiments are not here, as in a colleague's clone."""
        if names := missing(self.root, self.record):
            self.progress.say(
                f"missing in this repository: {counted(len(names), 'experiment')} of "
                f"{self.record.path}, as {names[0]}; running again (or stop, and get what is "
                "missing by `dvc exp pull`)"
            )
            for name in names:
                self.record.again(self.record.results[name].run)

    def _fill(self) -> None:
        """Start as many runs as the pool has room for."""
        while len(self.running) < self.pool.room() and (run := self.record.next()):
            self.starts[run.key] += 1
            needed = self.record.may_be_promoted(self.checkpoints)
            self.running[self.pool.start(run, needed)] = run

    def _collect(self, run: Run, outcome: Outcome) -> None:
        """Record how a run ended, or put it back if that was not its own fault.

        Raises:
            SweepError: it was started too often, and the machine seems to be the reason.
        """
        log = log_file(self.folder, run.name)
        if outcome.commit:
            self._finish(run, outcome.commit, log)
        elif outcome.is_its_own_fault:
            self._fail(run, outcome.message, log)
        elif self.starts[run.key] < _MOST_STARTS:
            self.record.again(run)
            self.progress.again(run, outcome.message)
        else:
            reason = f"was started {_MOST_STARTS} times and never ended: {outcome.message}"
            if outcome.node_failed or not self.record.ended:  # probably every run would fail
                raise SweepError(f"{run.name}: {reason}; {log}")
            self._fail(run, reason, log)

    def _finish(self, run: Run, commit: str, log: Path) -> None:
        """Record a run that is an experiment now."""
        try:
            result = read_result(self.root, commit, self.record.sweep.metric)
        except SweepError as err:
            self._fail(run, str(err), log)
            return
        self.record.finish(run, **result._asdict())
        self.progress.ended(run)

    def _fail(self, run: Run, reason: str, log: Path) -> None:
        self.record.fail(run, reason, str(log))
        self.progress.ended(run)


def take_snapshot(root: Path, sweep: str) -> tuple[str, str]:
    """Record the workspace with its uncommitted changes, as `dvc exp run --queue` does.

    Returns:
        The commit that the workspace is at, and one that also has the uncommitted changes.
    """
    baseline = git(root, "rev-parse", "--verify", "HEAD").strip()
    git(root, "status")  # refreshes the index, without which `stash create` may fail
    snapshot = git(root, "stash", "create").strip() or baseline
    # A ref keeps it from `git gc`. Other projects of the repository may have a sweep of this name.
    git(root, "update-ref", f"refs/fieldguide/{sweep}-{snapshot}", snapshot)
    return baseline, snapshot


def _check_is_here(root: Path, record: Record, *commits: str) -> None:
    """Refuse a sweep that began in another repository, with commits that are not in this one."""
    for commit in commits:
        try:
            git(root, "cat-file", "-e", f"{commit}^{{commit}}")
        except GitError as err:
            raise SweepError(
                f"{record.path}: the sweep began with commit {commit[:10]}, which is not in this "
                "repository; `git fetch` it, run the sweep where it began, or copy the sweep file "
                "under a new file name and set a new `name`"
            ) from err


def _check_git(root: Path, base: Params) -> tuple[str, str]:
    """Return the name and email that commits get here.

    Raises:
        SweepError: Git refuses the repository, has no commit or no identity, or a submodule has
            what a stage depends on, and clones have no submodules.
    """
    try:
        git(root, "rev-parse", "--git-dir")  # fails if another user owns the folder
        identity = git(root, "var", "GIT_COMMITTER_IDENT")
        listed = git(root, "ls-files", "--stage").splitlines()
    except GitError as err:
        raise SweepError(f"{err}; every trial is a commit") from err
    try:
        git(root, "rev-parse", "--verify", "HEAD")
    except GitError as err:
        raise SweepError(f"{root}: has no commit yet, and experiments need one") from err
    submodules = [Path(line.split("\t", 1)[1]) for line in listed if line.startswith("160000")]
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    archives = base.data.archive  # dvc.yaml has it as a variable
    deps = {archives} if isinstance(archives, str) else set(archives)
    for stage in stages.values():
        deps.update(stage.get("deps", []))
    for dep in sorted(deps):
        for submodule in submodules:
            if Path(dep).is_relative_to(submodule) or submodule.is_relative_to(dep):
                raise SweepError(
                    f"dvc.yaml: a stage depends on {dep}, which lies in the submodule "
                    f"{submodule}; clones of workers have no submodules, so that no trial would "
                    "find it; allowed: files of the repository itself, or of DVC"
                )
    user, _, rest = identity.partition(" <")
    return user, rest.partition(">")[0]


@contextmanager
def locked(root: Path, sweep: Sweep) -> Iterator[None]:
    """Keep other drivers away; if this one is killed, the kernel frees the lock.

    Raises:
        SweepError: another driver has it.
    """
    folder = state_folder(root, sweep.name)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / "driver.lock").acquire(timeout=0)
    except Timeout as err:
        raise SweepError(f"{sweep.path}: another process runs this sweep already") from err
    with lock:
        yield


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM, which job schedulers send, like Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001 - Python's signature
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
