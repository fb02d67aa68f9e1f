"""A Ray cluster: joined with its token, and given the code of this tree."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fieldguide
from fieldguide.errors import ClusterError

_REACH = 10.0  # seconds for the head to take a connection


@contextmanager
def connected(address: str, *, namespace: str) -> Iterator[None]:
    """Be a driver of a Ray cluster, whose nodes import this tree's `fieldguide`.

    Args:
        address: host:port of its head; this machine must be one of its nodes.
        namespace: in which names of actors are looked up.

    Raises:
        ClusterError: Ray is not installed, there is no cluster, its token is another one, or it
            would take work from anyone who reaches it.

    Source: https://docs.ray.io/en/latest/ray-security/token-auth.html
    """
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise ClusterError(
            f"RAY_AUTH_MODE: found {os.environ.get('RAY_AUTH_MODE')!r}; allowed: token, here and "
            "on every node, since a cluster without it runs whatever anyone sends; `ray "
            "get-auth-token --generate` makes a token, and RAY_AUTH_TOKEN or ~/.ray/auth_token "
            "holds it"
        )
    _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no report to anyone
    try:
        import ray  # noqa: PLC0415 - an extra that one machine does not need
    except ModuleNotFoundError as err:
        raise ClusterError("Ray is not installed; pip install 'fieldguide[cluster]'") from err
    try:
        ray.init(
            address,
            namespace=namespace,
            # This tree's code, and not what happens to be installed on a node.
            runtime_env={"py_modules": [str(Path(fieldguide.__file__).resolve().parent)]},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    # A wrong token and another service on that port look alike to it.
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as err:
        why = str(err).strip().partition("\n")[0]
        raise ClusterError(
            f"{address}: is no Ray cluster that this machine can join, or its token is another one "
            f"({why}); `ray status --address {address}` tells more"
        ) from err
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Ray itself waits for ever for a head that is not there."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(f"address: found {address!r}; allowed: host:port of the cluster's head")
    try:
        socket.create_connection((host, int(port)), timeout=_REACH).close()
    except (OSError, OverflowError) as err:
        raise ClusterError(f"{address}: nothing answers there ({err})") from err
