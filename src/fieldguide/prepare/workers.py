"""Independent pieces of work on all cores of this machine, with bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_AHEAD = 3  # pieces a core that wait for their turn
T = TypeVar("T")


def in_threads(pieces: Iterator[Callable[[], T]], *, at_most: int | None = None) -> Iterator[T]:
    """Run pieces at once, a few ahead, and yield what they return, in order.

    Threads, as Pillow, zlib, hashlib and files release the GIL.

    Args:
        pieces: taken as they are needed.
        at_most: pieces at a time; None for one a core.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(cores or 1, at_most or cores or 1)
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for piece in pieces:
                waiting.append(pool.submit(piece))
                if len(waiting) > _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
