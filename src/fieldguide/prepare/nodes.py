"""Parts of the photos decoded by the nodes of a Ray cluster: bytes go there, pixels come back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from fieldguide.core.errors import ClusterError
from fieldguide.prepare.chunks import Decoded, Failure, Wanted, decode_part, pillow_without_limit
from fieldguide.prepare.cluster import connected

_AHEAD = 2  # parts a core of the cluster that are there or on their way
_DECODERS = ("pillow", "simplejpeg")  # another version may round otherwise
Part = tuple[list[int], Sequence[bytes | Failure]]


def decode_on_nodes(parts: Iterator[Part], wanted: Wanted) -> Iterator[tuple[list[int], Decoded]]:
    """Decode parts on whichever core of the cluster at RAY_ADDRESS is free; any order of results.

    A part whose node or process dies is sent again, by Ray.

    Args:
        parts: rows, and the photos of each; taken as they are needed.
        wanted: how to decode.

    Raises:
        ClusterError: there is no cluster, a node's decoders are others than here, or Ray gave up
            on a part.
        MemoryError: a node has too little for a photo.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        raise ClusterError(
            f"data.engine: ray needs a cluster; RAY_ADDRESS: found {address!r}; allowed: host:port "
            "of its head, on a machine that is one of its nodes; without a cluster: local"
        )
    with connected(address, namespace="fieldguide"):
        import ray  # noqa: PLC0415 - an extra that one machine does not need

        decode = ray.remote(_decode_there)
        cores = int(ray.cluster_resources().get("CPU", 0))
        if cores == 0:
            raise ClusterError(f"{address}: the cluster has no core; allowed: one or more")
        most = _AHEAD * cores
        decoders = _decoders()
        waiting = {}
        try:
            for rows, photos in parts:
                waiting[decode.remote(list(photos), wanted, decoders)] = rows
                while len(waiting) >= most:
                    (done,), _ = ray.wait(list(waiting))
                    yield waiting.pop(done), ray.get(done)
            while waiting:
                (done,), _ = ray.wait(list(waiting))
                yield waiting.pop(done), ray.get(done)
        except ray.exceptions.RayTaskError as err:
            if isinstance(err.cause, ClusterError | MemoryError):
                raise err.cause from err
            raise
        except ray.exceptions.RayError as err:
            reason = str(err).strip().partition("\n")[0]
            raise ClusterError(f"{address}: photos could not be decoded there ({reason})") from err


def _decode_there(
    photos: Sequence[bytes | Failure], wanted: Wanted, decoders: dict[str, str]
) -> Decoded:
    """Decode one part; runs on a node."""
    here = _decoders()
    if here != decoders:
        raise ClusterError(
            f"node {os.uname().nodename} decodes with {here}; allowed: what prepare was started "
            f"with, {decoders}, as other versions may make other pixels"
        )
    with pillow_without_limit():
        return decode_part(photos, wanted)


def _decoders() -> dict[str, str]:
    return {name: version(name) for name in _DECODERS}
