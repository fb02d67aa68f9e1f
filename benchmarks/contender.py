"""Run every contender in its own process, which works once each time the parent asks.

Own processes keep the threads, patches and imports of one library away from the others. A process
stays alive between repeats, so that contenders take turns without loading again. It prints one JSON
object per line: first {"ready": true} or {"left_out": reason}, then one {"value": number} for each
line "go" that it reads.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Self

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "benchmarks"
NOT_A_USERS = ("OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")  # variables that users do not set


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peers_python() -> str:
    """Return the path of Python in the peers' environment, which `make bench` makes."""
    python = Path(os.environ.get("PEERS", ROOT / ".venv-peers")) / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"{python} does not exist; `make bench` makes it (benchmarks/peers.txt)")
    return str(python.absolute())


def environment() -> dict[str, str]:
    """Return the environment variables of a contender: this tree's code, all cores, no network."""
    env = {name: value for name, value in os.environ.items() if name not in NOT_A_USERS}
    env["PYTHONPATH"] = f"{ROOT / 'src'}{os.pathsep}{HERE}"
    env["HF_HUB_OFFLINE"] = "1"
    return env


class LeftOutError(Exception):
    """A contender cannot run on this machine; the message says why."""


class Contender:
    """The parent's end of a contender's process."""

    def __init__(self, python: str, script: str, settings: Mapping[str, Any]) -> None:
        """Start `benchmarks/contenders/<script>.py`.

        Args:
            python: path of the interpreter.
            script: name of the file, without .py.
            settings: what the script measures; it must fit into JSON.
        """
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._command = [
            *(python, str(HERE / "contenders" / f"{script}.py")),
            json.dumps(dict(settings)),
        ]
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def wait_until_ready(self) -> None:
        """Wait until the contender has loaded and converted its data.

        Raises:
            LeftOutError: the contender cannot run on this machine.
        """
        answer = self._read()
        if "left_out" in answer:
            raise LeftOutError(answer["left_out"])

    def measure(self) -> float:
        """Let the contender work once and return its figure."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write("go\n")
        stdin.flush()
        return float(self._read()["value"])

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return dict(json.loads(line))
        status = self._process.wait()
        self._errors.seek(0)
        shown = shlex.join(self._command)
        said = self._errors.read().decode(errors="replace").strip()
        raise SystemExit(f"{shown}: exit status {status}\n{said[-3000:]}")


@contextmanager
def contenders(
    wanted: Mapping[str, tuple[str, str, Mapping[str, Any]]], *, warm_up: bool = True
) -> Iterator[tuple[dict[str, Callable[[], float]], dict[str, str]]]:
    """Start all contenders; yield a function that measures each, and why others are left out.

    They load side by side, which saves minutes if one of them compiles. Then each works once alone,
    and this first figure is not counted.

    Args:
        wanted: name -> (interpreter, script, settings).
        warm_up: False if contenders must not work once before they are measured.
    """
    ways: dict[str, Callable[[], float]] = {}
    left_out = {}
    with ExitStack() as stack:
        started = {}
        for name, settings in wanted.items():
            started[name] = Contender(*settings)
            stack.callback(started[name].close)
        for name, contender in started.items():
            try:
                contender.wait_until_ready()
            except LeftOutError as err:
                left_out[name] = str(err)
                print(f"  {name}: left out, {err}", flush=True)
            else:
                ways[name] = contender.measure
        if warm_up:
            for measure in ways.values():
                measure()
        yield ways, left_out


class Link:
    """The child's end. Output of libraries goes to stderr, so that it is not read as an answer."""

    def __init__(self) -> None:
        self._out: IO[str] = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    @classmethod
    def open(cls) -> tuple[Self, dict[str, Any]]:
        """Return the link to the parent and the settings that the parent passed."""
        return cls(), json.loads(sys.argv[1])

    def ready(self) -> None:
        """Tell the parent that everything is loaded."""
        self._tell({"ready": True})

    def leave_out(self, why: str) -> None:
        """Tell the parent why this contender cannot run on this machine."""
        self._tell({"left_out": why})

    def answer(self, value: float) -> None:
        """Send the parent the figure of the work that `wait` asked for."""
        self._tell({"value": value})

    def wait(self) -> bool:
        """Wait until the parent asks for work; return False if it will not ask again."""
        return bool(sys.stdin.readline())

    def serve(self, measure: Callable[[], float]) -> None:
        """Call `measure` each time the parent asks for work, and send the figure."""
        self.ready()
        while self.wait():
            self.answer(measure())

    def _tell(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()
