"""The page of `fieldguide review`, and the requests that it sends."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fieldguide.core.errors import FieldguideError
from fieldguide.inference.server import PAGE as SERVE_PAGE
from fieldguide.inference.server import guarded
from fieldguide.inference.uploads import refuse_other_websites
from fieldguide.prepare.decode import UnusablePhotoError, decode
from fieldguide.prepare.member import UnreadableMemberError
from fieldguide.review.label_file import Decision
from fieldguide.review.session import Session

PAGE = Path(__file__).with_name("page")
_SIZES = {"small": 320, "large": 1024}  # pixels of the longer side
_MOST_SHOWN = 48  # photos of an answer
_MAX_BYTES = 100_000  # of a request's body
_DECODED = 2  # photos at a time, because a large one needs much memory
T = TypeVar("T")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Decide(_Strict):
    """A decision on one photo."""

    id: int
    label: str  # empty: not usable
    seen: tuple[str, str, str]  # what the table said about the photo: the fields of Decision


class DecideAll(_Strict):
    """The body of a request that decides photos, which one undo takes back together."""

    decisions: list[Decide] = Field(min_length=1, max_length=_MOST_SHOWN)


class Skip(_Strict):
    """The body of a skip."""

    id: int


class QueueQuery(BaseModel):
    """The query of a request for the next photos."""

    count: int = Field(ge=1, le=_MOST_SHOWN)
    first: int | None = None  # id of the photo of an undo, which the page shows again at once
    label: str | None = Field(None, alias="class")  # only photos of this class


M = TypeVar("M", bound=BaseModel)


def make_app(session: Session, *, hosts: Sequence[str]) -> Starlette:
    """Make the page as an ASGI application.

    Args:
        session: holds the queue and writes the decisions.
        hosts: names of the server that requests may use.
    """
    api = _Api(session)
    routes = [
        Route("/session", api.about),
        Route("/queue", api.queue),
        Route("/photo/{id:int}/{size}", api.photo),
        Route("/decide", api.decide, methods=["POST"]),
        Route("/skip", api.skip, methods=["POST"]),
        Route("/undo", api.undo, methods=["POST"]),
    ]
    icon = FileResponse(SERVE_PAGE / "icon.svg")
    return guarded(
        [
            Mount("/api", routes=routes, max_body_size=_MAX_BYTES),
            Route("/icon.svg", icon),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        hosts,
    )


class _Api:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.decoding = asyncio.Semaphore(_DECODED)

    async def about(self, _: Request) -> Response:
        session = self.session
        return JSONResponse(
            {
                "title": session.queue.title,
                "why": session.queue.why,
                "reviewer": session.reviewer,
                "table": str(session.project.labels.path),
            }
        )

    async def queue(self, request: Request) -> Response:
        """Return the next photos, and the classes of the table."""
        query = _checked(QueueQuery.model_validate, dict(request.query_params))
        waiting = await run_in_threadpool(self._call, lambda: self.session.waiting(query.label))
        items = waiting.items
        if query.first is not None:
            first = self._known(query.first)
            items = sorted(items, key=lambda k: k != first)  # the others keep their order
        return JSONResponse(
            {
                "items": [self._described(k) for k in items[: query.count]],
                "waiting": waiting.by_class.total(),
                "total": waiting.total,
                "by_class": dict(sorted(waiting.by_class.items())),
                "classes": self.session.project.labels.parsed.classes,
                "warnings": self.session.warnings(),
            }
        )

    def _described(self, k: int) -> dict[str, Any]:
        item = self.session.queue.items[k]
        decision = self.session.project.decision(item.photo)
        return {
            "id": k,
            "file": item.photo.source,
            "label": decision.label,
            "suggested": self.session.suggestion(item),
            "reasons": item.reasons,
            "seen": list(decision),
        }

    async def photo(self, request: Request) -> Response:
        size = _SIZES.get(request.path_params["size"])
        if size is None:
            raise HTTPException(404, f"size: allowed: {', '.join(_SIZES)}")
        photo = self.session.queue.items[self._known(request.path_params["id"])].photo
        archives = self.session.project.archives

        def work() -> bytes:
            pixels = decode(archives.read(photo.member), size, resize="fit")
            picture = io.BytesIO()
            Image.fromarray(pixels).save(picture, "JPEG", quality=90)
            return picture.getvalue()

        async with self.decoding:
            try:
                return Response(await run_in_threadpool(work), media_type="image/jpeg")
            except (UnreadableMemberError, UnusablePhotoError) as err:
                raise HTTPException(404, str(err)) from err
            except MemoryError as err:
                raise HTTPException(404, "too large for this machine's memory") from err

    async def decide(self, request: Request) -> Response:
        """Write decisions; the answer names the photos that somebody else has changed."""
        body = await _body(request, DecideAll)
        labels = self.session.project.labels
        table = await run_in_threadpool(self._call, labels.refresh)  # an editor may drop a class
        for one in body.decisions:
            self._known(one.id)
            if one.label and one.label not in table.classes:
                allowed = f"the classes of {labels.path}"
                raise HTTPException(422, f"label: found {one.label!r}; allowed: {allowed}")
        wanted = [(one.id, one.label, Decision(*one.seen)) for one in body.decisions]
        stay = await run_in_threadpool(self._call, lambda: self.session.decide(wanted))
        return JSONResponse({"stay": [self._now(k) for k in stay]})

    def _now(self, k: int) -> str:
        """Say what the table says about a photo that somebody else has changed."""
        photo = self.session.queue.items[k].photo
        label, who, when = self.session.project.decision(photo)
        what = label or ("not usable" if when else "no class")
        by = f", decided by {who}" if when else ""
        return f"{photo.source}: the table now says: {what}{by}; that stays"

    async def skip(self, request: Request) -> Response:
        body = await _body(request, Skip)
        k = self._known(body.id)
        await run_in_threadpool(self._call, lambda: self.session.skip(k))
        return JSONResponse({})

    async def undo(self, request: Request) -> Response:
        """Take back what was done last; the answer has the ids of its photos."""
        await _body(request, _Strict)
        ids, stay = await run_in_threadpool(self._call, self.session.undo)
        return JSONResponse({"ids": ids, "stay": stay})

    def _known(self, k: int) -> int:
        if not 0 <= k < len(self.session.queue.items):
            raise HTTPException(404, f"id: found {k}; there is no such photo")
        return k

    def _call(self, work: Callable[[], T]) -> T:
        """Do work; if it fails because of a file, the page shows why."""
        try:
            return work()
        except FieldguideError as err:
            raise HTTPException(500, str(err)) from err
        except OSError as err:
            raise HTTPException(500, f"{err.filename}: {err.strerror}") from err


async def _body(request: Request, model: type[M]) -> M:
    """Return the JSON body of a request from the page itself."""
    refuse_other_websites(request)
    if request.headers.get("content-type") != "application/json":
        raise HTTPException(415, "content-type: allowed: application/json")
    return _checked(model.model_validate_json, await request.body())


def _checked(validate: Callable[[Any], M], given: Any) -> M:
    """Return what a request holds; if that is not allowed, the page shows why."""
    try:
        return validate(given)
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise HTTPException(422, f"{where}: {first['msg']}") from err
