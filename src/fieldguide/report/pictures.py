"""The figures that `visualize` drew: their order, captions and size."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from fieldguide.core.files import write_bytes

_HUGE = 8_000_000  # bytes of a PNG above which it is made smaller for the page
CAPTIONS = {
    "predictions": "Photos of every class with what they were taken for",
    "mistakes": "The most confident mistakes",
    "guided_backprop": "Guided backprop: what excites neurons of the last convolution layer",
    "grad_cam": "Grad-CAM: where the network looks",
    "curves": "Training curves",
    "confusion": "Confusion matrix of the test set",
    "reliability": "Calibration, with how often each confidence occurs",
}


def caption(name: str) -> str:
    """Return what a figure shows."""
    if name in CAPTIONS:
        return CAPTIONS[name]
    kind, _, layer = name.partition("_")
    known = {"filters": "Filters of", "responses": "Responses to one photo of"}
    return f"{known[kind]} {layer}" if kind in known and layer else name


def sorted_figures(names: Iterable[str]) -> list[str]:
    """Return what a reader wants first, first."""
    place = {name: k for k, name in enumerate(CAPTIONS)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


def shrunk(data: bytes) -> bytes:
    """Return a PNG, halved until it is of a size that a page can hold."""
    while len(data) > _HUGE:
        with Image.open(io.BytesIO(data)) as picture:
            half = picture.convert("RGB").resize((picture.width // 2, picture.height // 2))
        buffer = io.BytesIO()
        half.save(buffer, "PNG", optimize=True)
        data = buffer.getvalue()
    return data


def write_pictures(figures: dict[str, bytes], folder: Path) -> list[Path]:
    """Write figures as they are, into a folder whose other files stay."""
    written = []
    for name in sorted_figures(figures):
        path = folder / f"{name.replace('/', '_')}.png"
        write_bytes(path, figures[name])
        written.append(path)
    return written
