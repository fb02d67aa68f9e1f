"""Find bursts: photos that were taken shortly after one another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from PIL import ExifTags

from fieldguide.prepare.layout import Photo
from fieldguide.prepare.open_photo import open_photo


class Taken(NamedTuple):
    """When a photo was taken, and by which camera."""

    milliseconds: int  # since 1970 by the camera's clock, which has no time zone
    camera: str  # make, model and serial number; empty if unknown


def when_taken(data: bytes) -> Taken | None:
    """Read the time and the camera from a photo's EXIF; None if there is no time.

    Source: EXIF 2.32, DateTimeOriginal, SubSecTimeOriginal, BodySerialNumber.
    """
    try:
        with open_photo(data) as image:
            main = image.getexif()
            detail = main.get_ifd(ExifTags.IFD.Exif)
    except Exception:  # noqa: BLE001 - odd metadata does not make a photo unusable
        return None
    text = detail.get(ExifTags.Base.DateTimeOriginal) or main.get(ExifTags.Base.DateTime)
    try:
        time = datetime.strptime(str(text).strip(" \0"), "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007
    except ValueError:  # missing, or 0000:00:00 of a camera whose clock was not set
        return None
    seconds = (time - datetime(1970, 1, 1)).total_seconds()  # noqa: DTZ001
    fraction = str(detail.get(ExifTags.Base.SubsecTimeOriginal) or "").strip(" \0")
    milliseconds = int(fraction[:3].ljust(3, "0")) if fraction.isdecimal() else 0
    parts = (
        *(main.get(tag) for tag in (ExifTags.Base.Make, ExifTags.Base.Model)),
        detail.get(ExifTags.Base.BodySerialNumber),
    )
    camera = " ".join(str(part).strip(" \0") for part in parts if part)
    return Taken(int(seconds) * 1000 + milliseconds, camera)


def burst_pairs(
    photos: Sequence[Photo], taken: Mapping[int, Taken], most_seconds: float
) -> list[tuple[int, int]]:
    """Return pairs of rows that connect the photos of each burst.

    Args:
        photos: by row.
        taken: of the rows that have a time.
        most_seconds: between a photo and the next one in the same folder or of the same camera.
    """
    rows_at: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, found in taken.items():
        member = photos[row].member
        rows_at["folder", member.archive, member.name.rpartition("/")[0]].append(row)
        if found.camera:
            rows_at["camera", found.camera].append(row)
    pairs = []
    for rows in rows_at.values():
        rows.sort(key=lambda row: (taken[row].milliseconds, row))
        pairs += [
            (row, later)
            for row, later in pairwise(rows)
            if taken[later].milliseconds - taken[row].milliseconds <= most_seconds * 1000
        ]
    return pairs
