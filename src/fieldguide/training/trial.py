"""Messages between a trial and the sweep that started it, as files in a folder.

The sweep passes the name of the folder in an environment variable, because DVC has no such channel.
Without the variable, as in every `dvc repro`, a training is not a trial.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from fieldguide.core.files import write_json

VARIABLE = "FIELDGUIDE_TRIAL"
# Seconds that a trial waits for an answer. It then continues, because the sweep must have ended; a
# sweep with a thousand workers may need a dozen seconds.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Channel:
    """The folder with the messages of one trial."""

    folder: Path

    @classmethod
    def from_environment(cls) -> Channel | None:
        """Return the channel to the sweep that started this process; None if no sweep did."""
        folder = os.environ.get(VARIABLE)
        return cls(Path(folder)) if folder else None

    def open(self, rungs: list[int]) -> None:
        """Make the folder; `rungs` are the epochs after which the trial asks to continue."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "rungs.json", rungs)

    def report(self, epoch: int, metrics: dict[str, float]) -> None:
        """Send the metrics of an epoch to the sweep; epochs count from 1."""
        with (self.folder / "epochs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, **metrics}) + "\n")

    def may_go_on(self, epoch: int) -> bool:
        """If `epoch` is a rung, ask the sweep and wait for its answer; otherwise return True."""
        try:
            rungs = json.loads((self.folder / "rungs.json").read_text(encoding="utf-8"))
        except OSError:
            return True
        if epoch not in rungs:
            return True
        answer = self.folder / f"rung-{epoch}.json"
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if answer.is_file():
                return bool(json.loads(answer.read_text(encoding="utf-8")))
            time.sleep(0.02)
        return True

    def reports(self) -> dict[int, dict[str, float]]:
        """Return the metrics of each reported epoch; the first report of a repeated epoch."""
        try:
            text = (self.folder / "epochs.jsonl").read_text(encoding="utf-8")
        except OSError:
            return {}
        found: dict[int, dict[str, float]] = {}
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):  # the last line may be incomplete
                row = json.loads(line)
                found.setdefault(int(row.pop("epoch")), row)
        return found

    def answer(self, epoch: int, *, go_on: bool) -> None:
        """Let the trial continue after this rung, or stop it with its best epoch so far."""
        write_json(self.folder / f"rung-{epoch}.json", go_on)
