"""Run a command, and kill it with its children when standard input closes.

`python -m fieldguide.results.guard COMMAND ...` is how tools run DVC: the pipe to standard input
closes however the tool ends, so that no stage outlives it. What a killed DVC has left running is
killed too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress


def main() -> int:
    """Return the exit status of the command."""
    # Ray kills the children of its worker when a run is ended, but not their children, so that the
    # process that guards must not be a child.
    if guard := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(guard, 0)[1])
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)

    def kill_when_input_closes() -> None:
        sys.stdin.read()
        kill()

    threading.Thread(target=kill_when_input_closes, daemon=True).start()
    status = command.wait()
    kill()
    return status


if __name__ == "__main__":
    # At once: a thread that still waits for input would end in an error.
    os._exit(main())
