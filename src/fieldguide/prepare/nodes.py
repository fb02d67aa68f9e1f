"""Decode chunks of photos on the nodes of a Ray cluster: bytes go there, pixels come back."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

from fieldguide.core.errors import ClusterError, first_line
from fieldguide.core.params import DataParams
from fieldguide.prepare.chunks import Chunks, Decoded, DecodedChunks, Failure, decode_chunk
from fieldguide.prepare.ray_connection import connected

_AHEAD = 2  # chunks for each core of the cluster that are sent before results return
_DECODERS = ("pillow", "pillow-heif", "simplejpeg")  # another version may round differently


def decode_on_nodes(chunks: Chunks, params: DataParams) -> DecodedChunks:
    """Decode chunks on the cluster at RAY_ADDRESS; results come in any order.

    If a node or process dies, Ray sends its chunk again.

    Args:
        chunks: rows of each chunk, and their photos; taken only when needed.
        params: how to decode.

    Raises:
        ClusterError: there is no cluster, a node's decoders differ from those here, or Ray gave up.
        MemoryError: a node has too little memory for a photo.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        raise ClusterError(
            f"data.engine: ray needs a cluster; RAY_ADDRESS: found {address!r}; allowed: host:port "
            "of the cluster's head; this machine must be one of its nodes; without a cluster, set "
            "data.engine: local"
        )
    with connected(address):
        import ray  # noqa: PLC0415 - an extra

        cores = int(ray.cluster_resources().get("CPU", 0))
        if cores == 0:
            raise ClusterError(f"{address}: the cluster has no core; allowed: one or more")
        decode = ray.remote(_decode_on_node)
        decoders = _decoders()
        waiting: dict[Any, list[int]] = {}
        try:
            for rows, photos in chunks:
                waiting[decode.remote(list(photos), params, decoders)] = rows
                while len(waiting) >= _AHEAD * cores:
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
            why = first_line(err)
            raise ClusterError(f"{address}: photos could not be decoded there ({why})") from err


def _decode_on_node(
    photos: list[bytes | Failure], params: DataParams, decoders: dict[str, str]
) -> list[Decoded | Failure]:
    """Decode one chunk, if the versions of this node's decoders are `decoders`."""
    here = _decoders()
    if here != decoders:
        raise ClusterError(
            f"node {os.uname().nodename} decodes with {here}; allowed: the versions where prepare "
            f"was started, {decoders}, because others may round pixels differently"
        )
    return decode_chunk(photos, params)


def _decoders() -> dict[str, str]:
    return {name: version(name) for name in _DECODERS}
