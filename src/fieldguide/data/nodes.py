"""Parts of the photos decoded by the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fieldguide.data.parts import Decoded, Failure, Wanted


def decode_on_nodes(
    parts: Iterator[Sequence[bytes | Failure]], wanted: Wanted
) -> Iterator[Decoded]:
    """Decode."""
    raise NotImplementedError
