"""`fieldguide serve`: a page that classifies the photo dropped on it, and the same over HTTP.

Nothing is fetched from elsewhere, kept or logged. What is sent may be of a stranger: its size is
counted while it arrives, and a website that the visitor has open in another tab cannot use the
server in their name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from fieldguide.core.errors import FieldguideError, PhotoError
from fieldguide.inference.card import Card
from fieldguide.inference.classifier import Classifier, Photo
from fieldguide.inference.uploads import HEADERS, MAX_BYTES, Guard, error, photo_of

MAX_PIXELS = 50_000_000  # as 32-bit TIFF, one of 88 million took 4 GB to decode
JOBS = 2  # photos at once: one is decoded while the network is busy with another
UPLOADS = 32  # photos that arrive at a time, each of up to MAX_BYTES
BACKLOG = 128
PAGE = Path(__file__).with_name("page")
# With their types: what Python's `mimetypes` says of .js differs between machines.
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
T = TypeVar("T")


@runtime_checkable
class Explainer(Protocol):
    """What a classifier that can explain itself has besides."""

    def explain(
        self, photo: Photo, label: str | None = None, *, max_pixels: int | None = None
    ) -> bytes:
        """Draw what counted for a class, by default the most probable, as PNG."""


def make_app(
    classifier: Classifier, card: Card, *, hosts: Collection[str] | None = None
) -> Starlette:
    """Make the page and the API as an ASGI application.

    Args:
        classifier: what answers.
        card: shown below the answers.
        hosts: names by which the server may be addressed; None for any.
    """
    api = _Api(classifier, card)
    return Starlette(
        routes=[
            *(Route(path, _sends(*file)) for path, file in FILES.items()),
            Route("/api/health", _health),
            Route("/api/model", api.model),
            Route("/api/predict", api.predict, methods=["POST"]),
            Route("/api/explain", api.explain, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={
            HTTPException: _http_error,
            PhotoError: _photo_error,
            ClientDisconnect: _hung_up,
            Exception: _own_fault,
        },
    )


def serve(classifier: Classifier, card: Card, *, host: str, port: int) -> None:
    """Serve until Ctrl-C.

    Args:
        classifier: what answers.
        card: shown below the answers.
        host: name or address to listen on.
        port: to listen on; 0 for one that is free.

    Raises:
        FieldguideError: nothing can listen there.
    """
    # What is wrong with a form is told to its sender; our terminal has a line for each otherwise.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    with listen(host, port) as listener:
        address, port = listener.getsockname()[:2]
        # DNS rebinding: a website's own name, once it points to this machine, would make its
        # scripts part of our page.
        loopback = ipaddress.ip_address(address).is_loopback
        app = make_app(
            classifier, card, hosts={address, "localhost", "127.0.0.1", "::1"} if loopback else None
        )
        name = f"[{host}]" if ":" in host else host
        print(f"Serving http://{name}:{port}  (Ctrl-C stops)", flush=True)
        try:
            uvicorn.Server(config_of(app)).run(sockets=[listener])
        except KeyboardInterrupt:  # raised again by uvicorn, after it has shut down
            print()


def config_of(app: Starlette) -> uvicorn.Config:
    """Return uvicorn's settings."""
    return uvicorn.Config(
        app,
        # One implementation, whatever else is installed.
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


def listen(host: str, port: int) -> socket.socket:
    """Open the socket.

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
    # What it accepts inherits this; asyncio sets it for sockets of its own making alone. Without,
    # an answer's body waits for the client to acknowledge its head: 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class _Api:
    def __init__(self, classifier: Classifier, card: Card) -> None:
        self.classifier, self.card = classifier, card
        self.explainer = classifier if isinstance(classifier, Explainer) else None
        self.jobs, self.uploads = asyncio.Semaphore(JOBS), asyncio.Semaphore(UPLOADS)

    async def model(self, _: Request) -> Response:
        return JSONResponse(
            {
                "architecture": self.card.architecture,
                "classes": self.classifier.classes,
                "image_size": self.classifier.image_size,
                "input_size": self.card.input_size,
                "val_acc": self.card.val_acc,
                "started_from": self.card.started_from,
                "test": self.card.test and self.card.test.model_dump(),
                "explain": self.explainer is not None,
                "max_bytes": MAX_BYTES,
            }
        )

    async def predict(self, request: Request) -> Response:
        top = self._top(request)
        async with self.uploads:
            photo = await photo_of(request)
        found = await self._run(
            request, lambda: self.classifier.predict(photo, max_pixels=MAX_PIXELS)
        )
        rows = [{"class": name, "probability": p} for name, p in found.top(top).items()]
        return JSONResponse({"classes": rows})

    async def explain(self, request: Request) -> Response:
        explainer = self.explainer
        if explainer is None:
            raise HTTPException(404, "this classifier cannot explain itself; that of a bundle can")
        label = request.query_params.get("class")
        if label is not None and label not in self.classifier.classes:
            raise HTTPException(422, f"class: found {label!r}; allowed: those of /api/model")
        async with self.uploads:
            photo = await photo_of(request)
        picture = await self._run(
            request, lambda: explainer.explain(photo, label, max_pixels=MAX_PIXELS)
        )
        return Response(picture, media_type="image/png")

    def _top(self, request: Request) -> int:
        count = len(self.classifier.classes)
        text = request.query_params.get("top", str(count))
        # Not `isdigit` alone, which takes "²".
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= count):  # noqa: PLR2004
            raise HTTPException(422, f"top: found {text!r}; allowed: 1 to {count}")
        return int(text)

    async def _run(self, request: Request, work: Callable[[], T]) -> T:
        """Do it in a thread: the page and other uploads go on, and few photos are in memory."""
        async with self.jobs:
            if await request.is_disconnected():  # while it waited for its turn
                raise ClientDisconnect
            try:
                return await run_in_threadpool(work)
            except MemoryError as err:
                raise HTTPException(422, "photo: too large for this machine's memory") from err


def _sends(name: str, media_type: str) -> Callable[[Request], Response]:
    return lambda _: FileResponse(PAGE / name, media_type=media_type)


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _http_error(_: Request, err: Exception) -> Response:
    assert isinstance(err, HTTPException)
    return error(err.status_code, err.detail, dict(err.headers or {}))


async def _photo_error(_: Request, err: Exception) -> Response:
    return error(422, str(err))


async def _hung_up(_: Request, __: Exception) -> Response:
    return error(400, "the connection was closed")  # nobody reads it


async def _own_fault(_: Request, __: Exception) -> Response:
    # Starlette answers this outside of the guard, then logs the traceback here.
    return error(500, "the server failed; its terminal says why", HEADERS)
