"""The photos that the benchmarks draw."""

import io
import zipfile

import numpy as np
import photos
from PIL import Image


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_seed_always_draws_the_same_picture():
    first = photos.draw(40, 30, seed=1)
    assert first == photos.draw(40, 30, seed=1)
    assert first != photos.draw(40, 30, seed=2)
    assert pixels(first).shape == (30, 40, 3)
    assert pixels(first).std() > 20  # not flat


def test_a_comment_changes_the_bytes_but_no_pixel():
    data = photos.draw(16, 16, seed=0)
    with_comment = photos.commented(data, 7)
    assert len(with_comment) == len(data) + 2 + 2 + 1  # marker, length, the digit
    assert (pixels(with_comment) == pixels(data)).all()
    assert Image.open(io.BytesIO(with_comment)).info["comment"] == b"7"


def test_photos_are_packed_and_unpacked_at_both_sizes(tmp_path):
    packed = photos.archive(tmp_path / "a.zip", 120, width=24, height=16)
    with zipfile.ZipFile(packed) as file:
        names = file.namelist()
        assert len({file.read(name) for name in names}) == 130  # no two are equal
    assert sum(name.startswith("train/") for name in names) == 120
    assert len({name.split("/")[1] for name in names}) == 10
    photos.unpack(packed, tmp_path / "whole")
    photos.unpack(packed, tmp_path / "small", size=8)
    with Image.open(tmp_path / "whole/train/class3/000003.jpg") as image:
        assert image.size == (24, 16)
    with Image.open(tmp_path / "small/train/class3/000003.jpg") as image:
        assert image.size == (8, 8)
