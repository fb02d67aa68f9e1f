"""Figures: their captions and their files."""

import pytest

from fieldguide.report.pictures import Picture, write_pictures


@pytest.mark.parametrize(
    ("name", "caption"),
    [("filters_conv1", "Filters of conv1"), ("mine", "mine"), ("filters_", "filters_")],
)
def test_caption(name, caption):
    assert Picture(name, b"").caption == caption


def test_a_name_is_a_file_of_the_folder(tmp_path):
    (tmp_path / "mine.txt").touch()
    write_pictures([Picture("a/../../b", b"x")], tmp_path / "p")
    assert [path.name for path in tmp_path.rglob("*.png")] == ["a_.._.._b.png"]
