"""`fieldguide serve`: a page that classifies the photo dropped on it, and an HTTP API for programs.

The server fetches nothing from other hosts; it neither keeps nor logs photos. A request may come
from a stranger: its size is limited while it arrives, and a website that is open in another tab of
the visitor's browser cannot use the server.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fieldguide.core.errors import FieldguideError, PhotoError
from fieldguide.inference.card import Card
from fieldguide.inference.classifier import Classifier
from fieldguide.inference.uploads import MAX_BYTES, photo_of

JOBS = 2  # photos at a time: one is decoded while the network is busy with another
UPLOADS = 32  # photos that arrive at a time, each of up to MAX_BYTES
BACKLOG = 128  # connections that wait to be accepted
PAGE = Path(__file__).with_name("page")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
T = TypeVar("T")


def serve(classifier: Classifier, card: Card, *, host: str, port: int) -> None:
    """Serve until Ctrl-C.

    Args:
        classifier: gives the answers.
        card: is shown below the answers.
        host: address or name to listen on.
        port: 0 for a free one.

    Raises:
        FieldguideError: the server cannot listen there.
    """
    # The sender of a broken form gets its mistakes as an answer; the terminal need not show them.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    run(lambda hosts: make_app(classifier, card, hosts=hosts), host=host, port=port)


def run(app_for: Callable[[Sequence[str]], Starlette], *, host: str, port: int) -> None:
    """Serve an application until Ctrl-C.

    Args:
        app_for: makes the application from the names of the server that requests may use.
        host: address or name to listen on.
        port: 0 for a free one.

    Raises:
        FieldguideError: the server cannot listen there.
    """
    with listen(host, port) as listener:
        address, port = listener.getsockname()[:2]
        # Against DNS rebinding: a website can point its own name to this machine, and its scripts
        # would then count as part of our page.
        hosts = ["*"]
        if ipaddress.ip_address(address).is_loopback:
            hosts = [address, "localhost", "127.0.0.1", "[::1]"]
        name = f"[{host}]" if ":" in host else host
        print(f"Serving http://{name}:{port}  (Ctrl-C stops)", flush=True)
        try:
            uvicorn.Server(config_of(app_for(hosts))).run(sockets=[listener])
        except KeyboardInterrupt:  # uvicorn raises it again after it has shut down
            print()


def listen(host: str, port: int) -> socket.socket:
    """Open the server's socket.

    Raises:
        FieldguideError: it cannot be opened.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server((str(address[0]), port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as err:
        reason = str(getattr(err, "strerror", None) or err).partition(" (while")[0]
        raise FieldguideError(
            f"--host {host} --port {port}: cannot listen there ({reason}); choose another --port, "
            "or 0 for one that is free"
        ) from err
    # Accepted connections inherit this. asyncio sets it only for sockets that it opened itself, and
    # without it the body of an answer waits 40 ms until the client acknowledges the head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def config_of(app: Starlette) -> uvicorn.Config:
    """Return uvicorn's settings."""
    return uvicorn.Config(
        app,
        # The same implementation, whatever else is installed.
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )


def make_app(classifier: Classifier, card: Card, *, hosts: Sequence[str] = ("*",)) -> Starlette:
    """Make the page and the API as an ASGI application.

    Args:
        classifier: gives the answers.
        card: is shown below the answers.
        hosts: names of the server that requests may use; "*" allows any.
    """
    api = _Api(classifier, card)
    routes = [
        Route("/model", api.model),
        Route("/predict", api.predict, methods=["POST"]),
        Route("/explain", api.explain, methods=["POST"]),
    ]
    pages: list[BaseRoute] = [
        Mount("/api", routes=routes, max_body_size=MAX_BYTES),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    return guarded(pages, hosts)


def guarded(routes: Sequence[BaseRoute], hosts: Sequence[str]) -> Starlette:
    """Make an application that sends HEADERS, refuses other hosts, and answers errors as JSON."""
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        ],
        exception_handlers={
            HTTPException: _http_error,
            ClientDisconnect: _disconnected,
            Exception: _internal_error,
        },
    )


class SecurityHeaders:
    """Adds HEADERS to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if message["status"] in (408, 413):
                    headers["Connection"] = "close"  # the rest of the photo is not read
            await send(message)

        await self.app(scope, receive, send_with_headers)


class _Api:
    def __init__(self, classifier: Classifier, card: Card) -> None:
        self.classifier, self.card = classifier, card
        self.jobs, self.uploads = asyncio.Semaphore(JOBS), asyncio.Semaphore(UPLOADS)

    async def model(self, _: Request) -> Response:
        return JSONResponse(
            {
                "classes": self.classifier.classes,
                "image_size": self.classifier.image_size,
                "min_confidence": self.classifier.min_confidence,
                **asdict(self.card),
                "explain": self.classifier.can_explain,
                "max_bytes": MAX_BYTES,
            }
        )

    async def predict(self, request: Request) -> Response:
        count = len(self.classifier.classes)
        text = request.query_params.get("top", str(count))
        if text not in map(str, range(1, count + 1)):
            raise HTTPException(422, f"top: found {text!r}; allowed: 1 to {count}")
        async with self.uploads:
            photo = await photo_of(request)
        found = await self._run(request, lambda: self.classifier.predict(photo))
        rows = [{"class": name, "probability": p} for name, p in found.top(int(text)).items()]
        smallest = self.classifier.min_confidence
        unsure = None if smallest is None else found.probability < smallest
        return JSONResponse({"classes": rows, "unsure": unsure})

    async def explain(self, request: Request) -> Response:
        if not self.classifier.can_explain:
            raise HTTPException(404, "an exported classifier cannot explain its answers")
        label = request.query_params.get("class")
        if label is not None and label not in self.classifier.classes:
            raise HTTPException(422, f"class: found {label!r}; allowed: those of /api/model")
        async with self.uploads:
            photo = await photo_of(request)
        picture = await self._run(request, lambda: self.classifier.explain(photo, label))
        return Response(picture, media_type="image/png")

    async def _run(self, request: Request, work: Callable[[], T]) -> T:
        """Run slow work in a thread, so that the server answers other requests meanwhile.

        Only JOBS pieces of work run at a time, so that few decoded photos are in memory.
        """
        async with self.jobs:
            if await request.is_disconnected():  # while it waited for its turn
                raise ClientDisconnect
            try:
                return await run_in_threadpool(work)
            except PhotoError as err:
                raise HTTPException(422, str(err)) from err


async def _http_error(_: Request, err: Exception) -> Response:
    assert isinstance(err, HTTPException)
    return JSONResponse({"error": err.detail}, err.status_code, err.headers)


async def _disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _internal_error(_: Request, __: Exception) -> Response:
    # Starlette sends this answer outside of SecurityHeaders, then logs the traceback.
    return JSONResponse({"error": "the server failed; its terminal says why"}, 500, HEADERS)
