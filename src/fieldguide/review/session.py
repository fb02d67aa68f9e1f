"""One reviewer at work on a queue: what is decided, skipped and undone."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import FieldguideError
from fieldguide.core.files import write_json
from fieldguide.review.label_file import Change, Decision
from fieldguide.review.project import ReviewProject
from fieldguide.review.queues import Item, Queue


class Waiting(NamedTuple):
    """The photos that are not reviewed yet, by their index in the queue."""

    items: list[int]  # skipped ones last
    by_class: Counter[str]  # "" is the key of photos without a class
    total: int  # photos of the queue


class Session:
    """Decisions on the photos of a queue. The label table holds them; memory holds none."""

    def __init__(
        self, project: ReviewProject, queue: Queue, *, reviewer: str, skipped: Path
    ) -> None:
        """Begin, or go on where an earlier session ended.

        Args:
            project: of the photos.
            queue: photos to review.
            reviewer: is written into each row.
            skipped: JSON file with the names of skipped photos.
        """
        self.project, self.queue, self.reviewer = project, queue, reviewer
        self.classes = project.labels.classes()
        for item in queue.items:
            if item.suggested not in self.classes:  # as `other`, which `data.rare` makes
                item.suggested = ""
        self._skipped_file = skipped
        self._done: list[tuple[int, Change | None]] = []  # None: skipped

    def waiting(self, label: str | None = None) -> Waiting:
        """Return what is still to review, as the table is now.

        Args:
            label: only photos of this class; None for all.
        """
        self.project.labels.refresh()
        shown = {
            k: self.shown_class(item)
            for k, item in enumerate(self.queue.items)
            if not self.project.decision(item.photo).reviewed_at
        }
        order = {source: k for k, source in enumerate(self._skipped(), start=1)}
        items = [k for k, name in shown.items() if label is None or name == label]
        items.sort(key=lambda k: order.get(self.queue.items[k].photo.source, 0))
        return Waiting(items, Counter(shown.values()), len(self.queue.items))

    def shown_class(self, item: Item) -> str:
        """Return the class of a photo in the table; if it has none, the suggested one."""
        return self.project.decision(item.photo).label or item.suggested

    def decide(self, k: int, label: str, seen: Decision) -> None:
        """Write the class of a photo into the table; an empty one means "not usable".

        Args:
            k: index in the queue.
            label: the class.
            seen: what the table said when the photo was shown.

        Raises:
            ChangedMeanwhileError: the table says something else now.
            FieldguideError: the table cannot be written.
        """
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        decision = Decision(label, self.reviewer, now)
        labels, photo = self.project.labels, self.queue.items[k].photo
        split = "train" if labels.has_splits else ""
        change = labels.decide(photo.names, decision, seen=seen, split=split)
        self._done.append((k, change))

    def skip(self, k: int) -> None:
        """Put a photo at the end of the queue."""
        source = self.queue.items[k].photo.source
        write_json(self._skipped_file, [*self._skipped(without=source), source])
        self._done.append((k, None))

    def undo(self) -> int | None:
        """Take back the last decision or skip of this session.

        Returns:
            Index of its photo in the queue; None if there is nothing to undo.

        Raises:
            ChangedMeanwhileError: somebody else has changed the row since.
            FieldguideError: the table cannot be written.
        """
        if not self._done:
            return None
        k, change = self._done.pop()
        if change is None:
            source = self.queue.items[k].photo.source
            write_json(self._skipped_file, self._skipped(without=source))
            return k
        try:
            self.project.labels.undo(change)
        except FieldguideError:
            self._done.append((k, change))  # it can be tried again
            raise
        return k

    def _skipped(self, *, without: str = "") -> list[str]:
        """Return the names of skipped photos, in the order in which they were skipped."""
        try:
            found = json.loads(self._skipped_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [source for source in found if source != without]
