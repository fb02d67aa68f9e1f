"""`prepare` and `fieldguide predict` read the same files, and the same pixels from each."""

import csv
import random

import numpy as np
from corpus import every_kind

from fieldguide.core.errors import PhotoError
from fieldguide.core.store import SPLITS, Store
from fieldguide.inference.answers import find_photos
from fieldguide.inference.classifier import Classifier
from fieldguide.prepare.prepare import prepare

SUFFIXES = [".jpg", ".JPEG", ".png", ".tif", ".webp", ".heic", ".pgm", ".cr2", ".txt", "", ".jfif"]
HIDDEN = ["._{}", "Thumbs.db", "@eaDir/{}", ".thumbnails/{}", "__MACOSX/{}"]


class Untrained(Classifier):
    """Decodes photos for classes that do not matter here."""

    def __init__(self):
        super().__init__(["ant", "bee"], image_size=16, resize="crop")

    def probabilities(self, pixels):
        return np.full((len(pixels), 2), 0.5)


def write_files(folder, count):
    """Write photos of all formats under names of all kinds, a third of them damaged."""
    rng = random.Random(0)
    kinds = [data for seed in range(6) for data in every_kind(seed).values()]
    for k in range(count):
        data = bytearray(rng.choice(kinds))
        if rng.random() < 0.2:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif rng.random() < 0.2:
            data = data[: rng.randrange(len(data))]
        name = f"{k:04d}{rng.choice(SUFFIXES)}"
        if rng.random() < 0.1:
            name = rng.choice(HIDDEN).format(name)
        path = folder / rng.choice(["ant", "bee", "bee/more", "."]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_a_thousand_files(tmp_path, make_params):
    folder = tmp_path / "photos"
    write_files(folder, 1000)
    data = {"archive": str(folder), "image_size": 16, "min_size": 1, "max_unreadable": 1.0}
    data["near_copies"] = False  # there are only a few pictures, in all formats
    params = make_params(data=data, model={"conv_layers": 2})
    prepare(params.data, tmp_path / "prepared")
    stored = {}
    for name in SPLITS:
        split = Store(tmp_path / "prepared").split(name)
        stored |= dict(zip(split.sources, split.images(np.arange(len(split))), strict=True))
    with (tmp_path / "prepared" / "left_out.csv").open(encoding="utf-8", newline="") as file:
        reasons = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    photos, skipped = find_photos([folder])
    names = {path.relative_to(folder).as_posix(): path for path in photos}
    others = {path.relative_to(folder).as_posix() for path in skipped}

    assert names.keys() == stored.keys() | {n for n, why in reasons.items() if why != "not a photo"}
    assert others == {name for name, why in reasons.items() if why == "not a photo"}
    assert len(stored) > 200
    classifier = Untrained()
    for name, path in names.items():
        try:
            pixels = classifier.pixels(path)
        except PhotoError:
            assert reasons[name] in ("unreadable", "misplaced"), name
        else:
            assert reasons.get(name) != "unreadable", name
            if name in stored:
                np.testing.assert_array_equal(pixels, stored[name], err_msg=name)
