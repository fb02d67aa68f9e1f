"""What is sent to `fieldguide serve`, checked before anything looks into it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from urllib.parse import urlsplit

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BYTES = 20_000_000  # of a photo, as it is sent
UPLOAD_SECONDS = 120.0
CHUNK = 65_536  # bytes
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


def error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Make an answer that says what was wrong."""
    return JSONResponse({"error": message}, status, headers)


class Guard:
    """Adds HEADERS to every answer, and refuses what other websites send through a browser."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have the application do it."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if self.hosts is not None and _hostname(host) not in self.hosts:
            return error(400, f"host: found {host!r}; allowed: a name of this machine itself")
        # A form or script of another website may send a POST anywhere, and its browser says so.
        origin = headers.get("origin")
        if method == "POST" and origin is not None and origin.partition("://")[2] != host:
            return error(403, f"sent by the page of another website ({origin})")
        return None


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # as of "[::1"
        return None


async def photo_of(request: Request) -> bytes:
    """Return the photo that was sent: the body itself, or the one file of a form."""
    body = await _body(request)
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        body = await _file_of_form(request.headers, body)
    if not body:
        raise HTTPException(400, "no photo: send one as the body, or as a file of a form")
    return body


async def _body(request: Request) -> bytes:
    # The rest of it is not read: the connection closes.
    stop = {"Connection": "close"}
    too_large = HTTPException(413, f"larger than {MAX_BYTES // 1_000_000} MB", headers=stop)
    announced = request.headers.get("content-length", "0")
    if len(announced) > 18 or int(announced) > MAX_BYTES:  # noqa: PLR2004
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            async for chunk in request.stream():
                if len(body) + len(chunk) > MAX_BYTES:
                    raise too_large
                body += chunk
    except TimeoutError as err:
        raise HTTPException(408, "the photo took too long to arrive", headers=stop) from err
    return bytes(body)


async def _file_of_form(headers: Headers, body: bytes) -> bytes:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), CHUNK):
            yield body[start : start + CHUNK]
            await asyncio.sleep(0)  # others have their turn

    _, options = parse_options_header(headers["content-type"])
    if b"--%s--" % options.get(b"boundary", b"") not in body:
        raise HTTPException(400, "the form is broken (without a boundary, or cut short)")
    parser = MultiPartParser(headers, chunks(), max_files=1, max_fields=10)
    parser.spool_max_size = MAX_BYTES  # a stranger's photo touches no disk
    try:
        form = await parser.parse()
    # A ValueError is python-multipart's, or of a charset that cannot decode the names.
    except (MultiPartException, ValueError) as err:
        raise HTTPException(400, f"the form is broken ({err})") from err
    try:
        for _, value in form.multi_items():
            if isinstance(value, UploadFile):
                return await value.read()
    finally:
        await form.close()
    raise HTTPException(400, "no file in the form; send one as `curl -F photo=@photo.jpg` does")
