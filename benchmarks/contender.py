"""One contender in a process of its own, which does its work each time it is told to.

A process of its own, so that no library's threads, patches or imports disturb another's; kept
between repeats, so that contenders can take turns without starting anew each time. The process
prints a JSON object a line: {"ready": true}, or {"left_out": why}, then {"value": ...} for each
"go" that it reads.
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
NOT_A_USERS = ("OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")  # variables


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peers_python() -> str:
    """Interpreter of the peers' environment, which `make bench` makes."""
    python = Path(os.environ.get("PEERS", ROOT / ".venv-peers")) / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"{python} does not exist; `make bench` makes it (benchmarks/peers.txt)")
    return str(python.absolute())


def environment() -> dict[str, str]:
    """Environment of every contender: this tree's code, all cores, no network."""
    env = {name: value for name, value in os.environ.items() if name not in NOT_A_USERS}
    env["PYTHONPATH"] = f"{ROOT / 'src'}{os.pathsep}{HERE}"
    env["HF_HUB_OFFLINE"] = "1"
    return env


class LeftOutError(Exception):
    """The contender cannot run here; the message says why."""


class Contender:
    """The parent's end."""

    def __init__(self, python: str, script: str, settings: Mapping[str, Any]) -> None:
        """Start `benchmarks/contenders/<script>.py`.

        Args:
            python: interpreter.
            script: name of the file.
            settings: what it shall do.
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
        """Wait until it has loaded and converted what it works on.

        Raises:
            LeftOutError: it cannot run here.
        """
        answer = self._read()
        if "left_out" in answer:
            raise LeftOutError(answer["left_out"])

    def measure(self) -> float:
        """Let it work once; return its figure."""
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
    """Start all contenders at once; yield how to measure each, and why others are left out.

    They load side by side, which saves minutes where one compiles. Then each works once, alone and
    not counted.

    Args:
        wanted: name -> (interpreter, script, settings).
        warm_up: whether each works once before.
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
    """The child's end. What libraries print goes to stderr, where nobody takes it for an answer."""

    def __init__(self) -> None:
        self._out: IO[str] = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    @classmethod
    def open(cls) -> tuple[Self, dict[str, Any]]:
        """Return the link and the settings that the parent gave."""
        return cls(), json.loads(sys.argv[1])

    def ready(self) -> None:
        """Tell that everything is loaded."""
        self._tell({"ready": True})

    def leave_out(self, why: str) -> None:
        """Tell that this contender cannot run here."""
        self._tell({"left_out": why})

    def answer(self, value: float) -> None:
        """Tell the figure of the work that `wait` asked for."""
        self._tell({"value": value})

    def wait(self) -> bool:
        """Wait until work is asked for; False where no more will be."""
        return bool(sys.stdin.readline())

    def serve(self, measure: Callable[[], float]) -> None:
        """Measure each time it is asked for."""
        self.ready()
        while self.wait():
            self.answer(measure())

    def _tell(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()
