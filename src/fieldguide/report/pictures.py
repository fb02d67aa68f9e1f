"""The figures of `visualize`, in the order of the page and with captions."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.files import write_bytes
from fieldguide.results.paths import FIGURES
from fieldguide.results.results import Missing, Results

_CAPTIONS = {
    "predictions": "Photos of every class with their predicted classes",
    "mistakes": "The most confident mistakes",
    "guided_backprop": "Guided backprop: what excites neurons of the last convolution layer",
    "grad_cam": "Grad-CAM: where the network looks",
    "curves": "Training curves",
    "most_alike": "The most alike training and test photo",
}


class Picture(NamedTuple):
    """A figure as a PNG."""

    name: str  # as filters_conv1
    png: bytes

    @property
    def is_large(self) -> bool:
        """Whether the figure needs the full width of the page; those of layers do not."""
        return self.name in _CAPTIONS

    @property
    def caption(self) -> str:
        """What the figure shows."""
        if self.name in _CAPTIONS:
            return _CAPTIONS[self.name]
        kind, _, layer = self.name.partition("_")
        known_kinds = {"filters": "Filters of", "responses": "Responses to one photo of"}
        return f"{known_kinds[kind]} {layer}" if kind in known_kinds and layer else self.name

    @property
    def url(self) -> str:
        """The PNG as a data: URL."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def read_pictures(run: Results) -> tuple[list[Picture], Missing | None]:
    """Return the figures of a run in the order of the page, and why any is missing."""
    if isinstance(run.figure_paths, Missing):
        return [], run.figure_paths
    found, missing = [], []
    for path in run.figure_paths:
        data = run.figure(path)
        if isinstance(data, Missing):
            missing.append(data)
        else:
            found.append(Picture(path.removeprefix(f"{FIGURES}/").removesuffix(".png"), data))
    place = {name: k for k, name in enumerate(_CAPTIONS)}
    found.sort(key=lambda one: (place.get(one.name, len(place)), one.name))
    if not missing:
        return found, None
    count = f"{len(missing)} of {len(run.figure_paths)} are missing"
    reason = f"{count}; {missing[0].path}: {missing[0].reason}"
    return found, Missing(FIGURES, run.label, reason, missing[0].damaged)


def write_pictures(pictures: Iterable[Picture], folder: Path) -> None:
    """Write each picture as it is into a folder; other files of the folder stay."""
    for picture in pictures:
        write_bytes(folder / f"{picture.name.replace('/', '_')}.png", picture.png)
