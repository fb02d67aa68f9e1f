"""Write an audit as one HTML page."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fieldguide.audit.audit import Audit, files_of
from fieldguide.audit.suspect import TITLES, Suspect
from fieldguide.core.store import Store
from fieldguide.pages import html

_LARGEST = 192  # pixels of a side of a photo on the page
_CONFUSIONS = 20  # pairs of classes on the page


class Card(NamedTuple):
    """A suspect and its pictures as data: URLs; a copy has two pictures."""

    suspect: Suspect
    pictures: list[str]


def render_page(audit: Audit, store: Store, *, most: int) -> str:
    """Return the page.

    Args:
        audit: what was found.
        store: photos.
        most: photos of each kind that the page shows, the worst ones.
    """
    of_kind = {kind: [one for one in audit.suspects if one.kind == kind] for kind in TITLES}
    shown = [one for some in of_kind.values() for one in some[:most]]
    urls = _urls(audit, store, {file for one in shown for file in files_of(one)})
    cards = [Card(one, [urls[file] for file in files_of(one) if file in urls]) for one in shown]
    return html.render(
        "audit.html",
        with_plotly=False,
        audit=audit,
        counts={kind: len(some) for kind, some in of_kind.items()},
        titles=TITLES,
        cards=cards,
        pairs=audit.confusions[:_CONFUSIONS],
    )


def _urls(audit: Audit, store: Store, files: set[str]) -> dict[str, str]:
    """Return the pictures of photos as data: URLs, by their names."""
    split = store.split(*audit.photos)
    rows = [row for row, source in enumerate(split.sources) if source in files]
    pixels = split.images(np.array(rows, dtype=np.int64))
    of_store = {split.sources[row]: one for row, one in zip(rows, pixels, strict=True)}
    of_archive = {name: one for name, one in audit.originals.pixels.items() if name in files}
    return {name: _url(one) for name, one in (of_archive | of_store).items()}


def _url(pixels: npt.NDArray[np.uint8]) -> str:
    """Return a photo as a data: URL, reduced if it is large: (H, W, 3), RGB."""
    image = Image.fromarray(pixels)
    image.thumbnail((_LARGEST, _LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
