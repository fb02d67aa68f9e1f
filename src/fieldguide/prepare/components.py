"""Rows that belong together because pairs of them do."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class Components:
    """Rows in components that grow together; each row begins alone."""

    def __init__(self, count: int) -> None:
        """Take the number of rows."""
        self.of = np.arange(count)  # component of each row
        self._members: dict[int, list[int]] = {}  # of components of two rows or more

    def merge(self, first: int, second: int) -> bool:
        """Make one component of those of two rows; return False if it is the same already."""
        large, small = int(self.of[first]), int(self.of[second])
        if large == small:
            return False
        members = [self._members.pop(component, [component]) for component in (large, small)]
        if len(members[0]) < len(members[1]):
            large = small
            members.reverse()
        self.of[members[1]] = large
        self._members[large] = members[0]
        members[0] += members[1]
        return True

    @property
    def several(self) -> list[list[int]]:
        """The rows, sorted, of each component of two rows or more."""
        return sorted(sorted(rows) for rows in self._members.values())


def connected(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the rows, sorted, of each component of two rows or more.

    Args:
        count: of all rows.
        pairs: of rows.
    """
    found = Components(count)
    for first, second in pairs:
        found.merge(first, second)
    return found.several
