"""Follow a training that runs in this process, by the line that it prints after each epoch."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable

_EPOCH = re.compile(r" *(\d+)/\d+ ")
_VAL_ACC = 4  # its place in the line: epoch, train/loss, train/acc, val/loss, val/acc


class EpochLines(io.TextIOBase):
    """Use it as standard output: it passes all text on, and tells the end of each epoch."""

    def __init__(self, tell: Callable[[int, float], None]) -> None:
        """Write to the present standard output.

        Args:
            tell: called after every epoch with its number, from 1, and its validation accuracy, of
                four digits. The training waits until it returns.
        """
        self._tell, self._out = tell, sys.stdout

    def write(self, text: str) -> int:
        """Write a line, or the end of one."""
        if line := _EPOCH.match(text):
            self._tell(int(line[1]), float(text.split()[_VAL_ACC]))
        return self._out.write(text)

    def flush(self) -> None:
        """Flush the text that was passed on."""
        self._out.flush()
