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
from fieldguide.core.errors import ClusterError

# Seconds.
_CONNECT = 10.0  # for the head to accept a connection
_JOIN = 60.0  # for Ray to join the cluster
_CHECK, _SILENCE = 5.0, 30.0  # between two checks of the head, and until a silent head is gone


@contextmanager
def connected(address: str, *, namespace: str) -> Iterator[None]:
    """Connect this process to a Ray cluster whose nodes import `fieldguide` from this tree.

    Args:
        address: host:port of the cluster's head; this machine must be one of its nodes.
        namespace: Ray looks up names of actors in it.

    Raises:
        ClusterError: Ray is not installed, there is no cluster, it has another token, or it would
            accept work from anyone.

    Source: https://docs.ray.io/en/latest/ray-security/token-auth.html
    """
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise ClusterError(
            f"RAY_AUTH_MODE: found {os.environ.get('RAY_AUTH_MODE')!r}; allowed: token, here and "
            "on every node, because a cluster without a token runs code from anyone; `ray "
            "get-auth-token --generate` makes a token; put it into RAY_AUTH_TOKEN or "
            "~/.ray/auth_token"
        )
    _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports nothing
    try:
        import ray  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as err:
        raise ClusterError("Ray is not installed; pip install 'fieldguide[cluster]'") from err
    watch = _Watch(address)
    watch.start()
    try:
        ray.init(
            address,
            namespace=namespace,
            # The code of this tree, not the package that a node may have installed.
            runtime_env={"py_modules": [str(Path(fieldguide.__file__).resolve().parent)]},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as err:
        watch.left.set()
        # Ray cannot distinguish a wrong token from another service on that port.
        why = str(err).strip().partition("\n")[0]
        raise ClusterError(
            f"{address}: is no Ray cluster that this machine can join, or its token is another one "
            f"({why}); `ray status --address {address}` tells more"
        ) from err
    try:
        watch.joined.set()
        yield
    finally:
        watch.left.set()
        ray.shutdown()


class _Watch(threading.Thread):
    """Ends this process with a message if the head is gone, where Ray would wait forever.

    No file is left incomplete, because files are written aside and renamed.
    """

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True, name="head")
        self._address = address
        self.joined, self.left = threading.Event(), threading.Event()

    def run(self) -> None:
        """Check the head every few seconds."""
        began = heard = time.monotonic()
        while not self.left.wait(_CHECK):
            now = time.monotonic()
            if not self.joined.is_set():
                if now - began > _JOIN:
                    self._end("something answers there, but is no head of a Ray cluster")
            elif _connection_error(self._address) is None:
                heard = now
            elif now - heard > _SILENCE:
                self._end("the head of the cluster is gone; once it is back, run this again")

    def _end(self, why: str) -> None:
        print(f"fieldguide: {self._address}: {why}", file=sys.stderr, flush=True)
        os._exit(1)


def _connection_error(address: str) -> OSError | None:
    """Return why nothing answers at host:port; None if something does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT).close()
    except OSError as err:
        return err
    return None


def _check_answers(address: str) -> None:
    """Refuse an address where nothing answers, because Ray would wait forever."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
        raise ClusterError(f"address: found {address!r}; allowed: host:port of the cluster's head")
    if (err := _connection_error(address)) is not None:
        raise ClusterError(f"{address}: nothing answers there ({err})") from err
