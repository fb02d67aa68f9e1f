"""One reviewer at work on a queue: what is decided, skipped and undone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from fieldguide.core.errors import FieldguideError
from fieldguide.review.label_file import Change, Choice, Decision
from fieldguide.review.project import ReviewProject
from fieldguide.review.queues import Item, Queue


class Waiting(NamedTuple):
    """The photos that are not reviewed yet, by their index in the queue."""

    items: list[int]  # skipped ones last
    by_class: Counter[str]  # "" is the key of photos without a class
    total: int  # photos of the queue


class Done(NamedTuple):
    """What the reviewer did last, so that it can be undone."""

    items: list[int]
    change: Change | None  # None: skipped


class Session:
    """Decisions on the photos of a queue. The label table holds them; memory holds only skips."""

    def __init__(self, project: ReviewProject, queue: Queue, *, reviewer: str) -> None:
        """Begin, or go on where an earlier session ended.

        Args:
            project: of the photos.
            queue: photos to review.
            reviewer: is written into each row.
        """
        self.project, self.queue, self.reviewer = project, queue, reviewer
        self._first_classes = project.labels.parsed.classes
        self._skipped: list[int] = []
        self._done: list[Done] = []

    def waiting(self, label: str | None = None) -> Waiting:
        """Return what is still to review, as the table is now.

        Args:
            label: only photos of this class; None for all.
        """
        self.project.labels.refresh()
        shown = {}
        for k, item in enumerate(self.queue.items):
            decision = self.project.decision(item.photo)
            if not decision.reviewed_at:
                shown[k] = decision.label or self.suggestion(item)
        order = {k: place for place, k in enumerate(self._skipped, start=1)}
        items = [k for k, name in shown.items() if label is None or name == label]
        items.sort(key=lambda k: order.get(k, 0))
        return Waiting(items, Counter(shown.values()), len(self.queue.items))

    def suggestion(self, item: Item) -> str:
        """Return the suggested class of a photo; empty if the table lacks it.

        It lacks `other`, for example, which `data.rare` makes. Both photos of a pair of copies are
        in the queue; after a decision on one, its old class would be wrong for the other.
        """
        copy = self.project.photo(item.copy_of)
        suggested = item.suggested if copy is None else self.project.decision(copy).label
        return suggested if suggested in self.project.labels.parsed.classes else ""

    def warnings(self) -> list[str]:
        """Return what `prepare` would not accept in the table."""
        return self.project.lacking(self._first_classes)

    def decide(self, wanted: Sequence[tuple[int, str, Decision]]) -> list[int]:
        """Write the classes of photos into the table.

        Args:
            wanted: for each photo its index in the queue, its class (empty: "not usable"), and what
                the table said when it was shown.

        Returns:
            Indices of photos that keep what somebody else has written meanwhile.

        Raises:
            FieldguideError: the table cannot be written.
        """
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        split = "train" if self.project.table_has_splits else ""
        choices = [
            Choice(
                self.queue.items[k].photo.names, Decision(label, self.reviewer, now), seen, split
            )
            for k, label, seen in wanted
        ]
        change, refused = self.project.labels.decide(choices)
        stay = [wanted[place][0] for place in refused]
        if change:
            self._done.append(Done([k for k, _, _ in wanted if k not in stay], change))
        return stay

    def skip(self, k: int) -> None:
        """Put a photo at the end of the queue."""
        self._skipped = [*(one for one in self._skipped if one != k), k]
        self._done.append(Done([k], None))

    def undo(self) -> tuple[list[int], int]:
        """Take back the last skip, or the last decisions that were written together.

        Returns:
            Indices of the photos in the queue, none if there is nothing to undo; and the number of
            rows that stay, because somebody else has changed them since.

        Raises:
            FieldguideError: the table cannot be written.
        """
        if not self._done:
            return [], 0
        done, stay = self._done.pop(), 0
        if done.change is None:
            self._skipped = [k for k in self._skipped if k not in done.items]
            return done.items, 0
        try:
            stay = self.project.labels.undo(done.change)
        except FieldguideError:
            self._done.append(done)  # it can be tried again
            raise
        return done.items, stay
