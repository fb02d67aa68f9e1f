"""Figures: their order, their names, and what is made of huge ones."""

import io

import numpy as np
from PIL import Image

from fieldguide.report import pictures
from fieldguide.report.pictures import caption, shrunk, sorted_figures, write_pictures


def noise(side):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_huge_picture_is_halved_until_it_fits(monkeypatch):
    monkeypatch.setattr(pictures, "_HUGE", 20_000)
    small, huge = noise(60), noise(200)  # 3 bytes a pixel: 10.8 kB and 120 kB
    assert shrunk(small) is small
    with Image.open(io.BytesIO(shrunk(huge))) as picture:
        assert picture.size == (50, 50)  # 100 would be 30 kB


def test_order_and_captions():
    names = ["responses_conv1", "confusion", "mine", "predictions", "filters_conv1"]
    assert sorted_figures(names) == [
        *("predictions", "confusion", "filters_conv1", "mine", "responses_conv1")
    ]
    assert caption("filters_conv1") == "Filters of conv1"
    assert caption("mine") == "mine"
    assert caption("filters_") == "filters_"


def test_a_name_is_a_file_of_the_folder(tmp_path):
    (tmp_path / "mine.txt").touch()
    write_pictures({"a/../../b": b"x"}, tmp_path / "p")
    assert [path.name for path in tmp_path.rglob("*.png")] == ["a_.._.._b.png"]
