"""A Ray cluster: joined with its token, and given the code of this tree."""

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

_REACH = 10.0  # seconds for the head to take a connection
_JOIN = 60.0  # seconds for Ray to join it
_LOOK, _SILENCE = 5.0, 30.0  # seconds between looks at it, and without it


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
    watch = _Watch(address)
    watch.start()
    try:
        ray.init(
            address,
            namespace=namespace,
            # This tree's code, and not what happens to be installed on a node.
            runtime_env={"py_modules": [str(Path(fieldguide.__file__).resolve().parent)]},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as err:
        watch.left.set()
        # A wrong token and another service on that port look alike to it.
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
    """Ends this process, with a message, where Ray would wait for ever for a head.

    Nothing is lost by it: what this process was about to write, it writes aside and renames.
    """

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True, name="head")
        self._address = address
        self.joined, self.left = threading.Event(), threading.Event()

    def run(self) -> None:
        """Look every few seconds."""
        began = heard = time.monotonic()
        while not self.left.wait(_LOOK):
            now = time.monotonic()
            if not self.joined.is_set():
                if now - began > _JOIN:
                    self._end("answers, but not as the head of a Ray cluster")
            elif _reach(self._address) is None:
                heard = now
            elif now - heard > _SILENCE:
                self._end("the head of the cluster is gone; once it is back, run this again")

    def _end(self, why: str) -> None:
        print(f"fieldguide: {self._address}: {why}", file=sys.stderr, flush=True)
        os._exit(1)


def _reach(address: str) -> OSError | None:
    """Why nobody answers at host:port; None if somebody does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_REACH).close()
    except OSError as err:
        return err
    return None


def _check_answers(address: str) -> None:
    """Ray itself waits for ever for a head that is not there."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
        raise ClusterError(f"address: found {address!r}; allowed: host:port of the cluster's head")
    if (err := _reach(address)) is not None:
        raise ClusterError(f"{address}: nothing answers there ({err})") from err
