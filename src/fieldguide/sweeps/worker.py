"""A worker on a Ray cluster: an actor that the driver calls, and that starts node.py for a trial.

node.py ends with this process, however this one is killed, because its standard input closes.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import fieldguide

FOLDER = "FIELDGUIDE_NODE_FOLDER"  # environment variable: where a node keeps clones and its cache
_POLL = 10.0  # seconds that `events` waits for a new one
_ALONE = 600.0  # seconds without a driver and without a trial, after which a worker ends


class Worker:
    """Runs one trial at a time; its methods run in threads."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Keep what all trials share, the fields of node.Job."""
        self._job = job
        self._node: subprocess.Popen[str] | None = None  # of the latest trial
        self._name: str | None = None  # of the latest trial
        self._events: list[dict[str, Any]] = []  # of that trial
        self._news = threading.Condition()
        self._last_call = time.monotonic()
        threading.Thread(target=self._leave_when_alone, daemon=True).start()

    def state(self) -> tuple[str, str | None]:
        """Return the node and the latest trial; the first answer comes once Ray has placed it."""
        with self._news:
            self._last_call = time.monotonic()
            # Nodes on one machine differ by their folder.
            return f"{socket.gethostname()} {os.environ.get(FOLDER, '')}", self._name

    def run(self, name: str, overrides: dict[str, Any], rungs: list[int]) -> list[dict[str, Any]]:
        """Start a trial after the latest has ended, and return its first events.

        Raises:
            OSError: its process cannot be started.
        """
        with self._news:
            self._name, self._events = name, []
            self._node = self._start()
        self._send(job=self._job, name=name, overrides=overrides, rungs=rungs)
        return self.events(name, 0)

    def answer(self, epoch: int, *, go_on: bool) -> None:
        """Pass the driver's answer at a rung to the trial."""
        self._send(epoch=epoch, go_on=go_on)

    def events(self, name: str, seen: int) -> list[dict[str, Any]]:
        """Return the events of a trial after the first `seen`; wait a while if there are none.

        With the name "" there are none: so the driver watches a worker without a trial.
        """

        def is_new() -> bool:
            return self._name == name and len(self._events) > seen

        with self._news:
            found = self._news.wait_for(is_new, timeout=_POLL)
            self._last_call = time.monotonic()
            return self._events[seen:] if found else []

    def _start(self) -> subprocess.Popen[str]:
        # The driver's code goes before what is installed here.
        paths = [str(Path(fieldguide.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")]
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - `_listen` closes it
        try:
            node = subprocess.Popen(
                [sys.executable, "-m", "fieldguide.sweeps.node"],
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
            )
        except OSError:
            errors.close()
            raise
        threading.Thread(target=self._listen, args=(node, errors), daemon=True).start()
        return node

    def _send(self, **message: Any) -> None:
        assert self._node is not None
        assert self._node.stdin is not None
        with suppress(OSError, ValueError):  # it has ended, which `_listen` reports
            self._node.stdin.write(json.dumps(message) + "\n")
            self._node.stdin.flush()

    def _listen(self, node: subprocess.Popen[str], errors: IO[bytes]) -> None:
        """Collect the events of a trial; its end comes when its process has ended."""
        assert node.stdout is not None
        assert node.stdin is not None
        end: dict[str, Any] | None = None
        with node.stdout, suppress(ValueError):  # a last line that was cut
            for line in node.stdout:
                event = json.loads(line)
                if event["event"] == "ended":
                    end = event
                else:
                    self._add(event)
        status = node.wait()
        with suppress(OSError):  # for an answer that it has not read
            node.stdin.close()
        with errors:
            errors.seek(0)
            log = errors.read().decode("utf-8", "replace")
        if end is None:
            last = (log.strip().splitlines() or ["it printed nothing"])[-1]
            message = f"the process that ran it on its node ended with {status} ({last})"
            end = {"event": "ended", "status": None, "message": message, "log": log}
        self._add(end)

    def _add(self, event: dict[str, Any]) -> None:
        with self._news:
            self._events.append({"name": self._name, **event})
            self._news.notify_all()

    def _leave_when_alone(self) -> None:
        """End, and free the resources, if the driver does not come back."""
        while True:
            time.sleep(1)
            with self._news:
                busy = self._name is not None and not (
                    self._events and self._events[-1]["event"] == "ended"
                )
                if not busy and time.monotonic() - self._last_call > _ALONE:
                    os._exit(0)
