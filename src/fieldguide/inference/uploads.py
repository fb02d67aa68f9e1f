"""Receive the photo of a request to `fieldguide serve`."""

from __future__ import annotations

import asyncio

import python_multipart  # noqa: F401 - Starlette parses forms with it
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from fieldguide.prepare.names import is_hidden

MAX_BYTES = 20_000_000  # of a request's body
UPLOAD_SECONDS = 120.0


async def photo_of(request: Request) -> bytes:
    """Return the photo of a request: its body, or the one file of its form.

    Raises:
        HTTPException: another website sent the request, or it holds no photo.
    """
    refuse_other_websites(request)
    content_type = request.headers.get("content-type", "").lower()
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            if content_type.startswith("multipart/form-data"):
                photo = await _file_of_form(request)
            else:
                photo = await request.body()
    except TimeoutError as err:
        raise HTTPException(408, "the photo took too long to arrive") from err
    if not photo:
        raise HTTPException(400, "no photo: send one as the body, or as a file of a form")
    return photo


def refuse_other_websites(request: Request) -> None:
    """Refuse a request that the page of another website sends.

    Forms and scripts of other websites may send a POST anywhere; browsers name their origin.

    Raises:
        HTTPException: another website sent the request.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise HTTPException(403, f"sent by the page of another website ({origin})")


async def _file_of_form(request: Request) -> bytes:
    try:
        async with request.form(max_files=1, max_fields=10) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if files:
                _refuse_hidden(files[0].filename or "")
                return await files[0].read()
    except ValueError as err:  # the form names a charset that cannot decode its field names
        raise HTTPException(400, f"the form is broken ({err})") from err
    raise HTTPException(400, "no file in the form; send one as `curl -F photo=@photo.jpg` does")


def _refuse_hidden(name: str) -> None:
    if is_hidden(name.replace("\\", "/")):
        raise HTTPException(
            422, f"{name}: a file that a camera or a disk leaves behind, not a photo"
        )
