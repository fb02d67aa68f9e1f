"""Join a Ray cluster with its token, and give its nodes the code of this tree."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fieldguide
from fieldguide.core.errors import ClusterError, first_line

_REACH = 10.0  # seconds for the head to accept a connection
_JOIN = 60.0  # seconds for Ray to join the cluster
_INTERVAL = 5.0  # seconds between two connections to the head
_SILENCE = 30.0  # seconds without a connection, after which the head is taken for dead


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Join a Ray cluster as a driver; its nodes import this tree's `fieldguide`.

    Args:
        address: host:port of the head; this machine must be a node of the cluster.

    Raises:
        ClusterError: Ray is not installed, there is no such cluster, its token differs, or it has
            none and would accept work from anyone.

    Source: https://docs.ray.io/en/latest/ray-security/token-auth.html
    """
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise ClusterError(
            f"RAY_AUTH_MODE: found {os.environ.get('RAY_AUTH_MODE')!r}; allowed: token, here and "
            "on every node, since a cluster without it runs whatever anyone sends; `ray "
            "get-auth-token --generate` makes a token for RAY_AUTH_TOKEN or ~/.ray/auth_token"
        )
    _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to nobody
    try:
        import ray  # noqa: PLC0415 - an extra, which one machine does not need
    except ModuleNotFoundError as err:
        raise ClusterError("Ray is not installed; pip install 'fieldguide[cluster]'") from err
    joined, left = threading.Event(), threading.Event()
    threading.Thread(target=_watch, args=(address, joined, left), daemon=True).start()
    try:
        ray.init(
            address,
            # Nodes run this tree's code, not what is installed there.
            runtime_env={"py_modules": [str(Path(fieldguide.__file__).resolve().parent)]},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as err:
        left.set()
        # Ray does not tell a wrong token from another service on that port.
        raise ClusterError(
            f"{address}: is no Ray cluster that this machine can join, or its token is another one "
            f"({first_line(err)}); `ray status --address {address}` tells more"
        ) from err
    try:
        joined.set()
        yield
    finally:
        left.set()
        ray.shutdown()


def _watch(address: str, joined: threading.Event, left: threading.Event) -> None:
    """End this process with a message if the head is gone; Ray would wait for it for ever.

    No file is left half-written: all are written under another name and renamed.
    """
    began = heard = time.monotonic()
    while not left.wait(_INTERVAL):
        now, problem = time.monotonic(), None
        if not joined.is_set():
            if now - began > _JOIN:
                problem = "answers, but not as the head of a Ray cluster"
        elif _connect(address) is None:
            heard = now
        elif now - heard > _SILENCE:
            problem = "the head of the cluster is gone; once it is back, run this again"
        if problem:
            print(f"fieldguide: {address}: {problem}", file=sys.stderr, flush=True)
            os._exit(1)


def _connect(address: str) -> OSError | None:
    """Return the error of a connection to host:port; None if it succeeds."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_REACH).close()
    except OSError as err:
        return err
    return None


def _check_answers(address: str) -> None:
    """Refuse an address where nothing answers; Ray would wait for ever."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
        raise ClusterError(f"address: found {address!r}; allowed: host:port of the cluster's head")
    if (err := _connect(address)) is not None:
        raise ClusterError(f"{address}: nothing answers there ({err})") from err
