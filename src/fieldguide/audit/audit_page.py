"""Write an audit as one HTML page."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from fieldguide.audit.audit import Audit
from fieldguide.audit.suspect import TITLES, Suspect
from fieldguide.core.store import Store
from fieldguide.pages import html

_LARGEST = 192  # pixels of a side of a photo on the page
_CONFUSIONS = 20  # pairs of classes on the page


def render_page(audit: Audit, store: Store, *, most: int) -> str:
    """Return the page.

    Args:
        audit: what was found.
        store: photos.
        most: photos or pairs of photos of each kind that the page shows, the worst ones.
    """
    of_kind = {kind: [one for one in audit.suspects if one.kind == kind] for kind in TITLES}
    once = {kind: _without_twins(suspects) for kind, suspects in of_kind.items()}
    shown = {kind: suspects[:most] for kind, suspects in once.items()}
    files = {name for some in shown.values() for one in some for name in (one.file, one.other)}
    return html.render(
        "audit.html",
        with_plotly=False,
        audit=audit,
        counts={kind: len(suspects) for kind, suspects in of_kind.items()},
        cases={kind: len(suspects) for kind, suspects in once.items()},
        titles=TITLES,
        shown=shown,
        urls=_urls(audit, store, files),
        pairs=audit.confusions[:_CONFUSIONS],
    )


def _without_twins(suspects: list[Suspect]) -> list[Suspect]:
    """Return each pair of copies once: both photos of a pair are suspects."""
    pairs: dict[frozenset[str], Suspect] = {}
    for one in suspects:
        pairs.setdefault(frozenset((one.file, one.other)), one)
    return list(pairs.values())


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
