"""Parts are bounded, and pixels of the staged file are read back as they were written."""

import numpy as np
import pytest

from fieldguide.prepare import staging
from fieldguide.prepare.archive import open_archive
from fieldguide.prepare.chunks import Wanted


@pytest.fixture
def parts_of(tmp_path, pack):
    """Rows of each part of photos of so many bytes, stored at `pixels`: parts_of([10, 20], 8)."""

    def make(sizes, pixels, **options):
        files = {f"{k:03d}.jpg": bytes(size) for k, size in enumerate(sizes)}
        with open_archive(pack(tmp_path / "photos.tar", files)) as archive:
            wanted = Wanted(pixels, "crop", 1)
            return staging._parts(archive, archive.members, wanted, **options)

    return make


def test_a_part_is_bounded_in_photos_in_bytes_and_in_pixels(parts_of):
    assert [len(part) for part in parts_of([1] * 40, 8)] == [16, 16, 8]
    # The part that reaches a MiB is full: 400,000 × 3.
    assert [len(part) for part in parts_of([400_000] * 7, 8)] == [3, 3, 1]
    assert [len(part) for part in parts_of([1] * 12, 512)] == [5, 5, 2]  # 786,432 bytes of 4 MiB
    assert [len(part) for part in parts_of([1] * 100, 8, times=4)] == [64, 36]
    assert parts_of([], 8) == []


def test_every_photo_is_in_one_part(parts_of):
    parts = parts_of([1, 10**6, 10**6, 5] * 9, 8)
    assert [row for part in parts for row in part] == list(range(36))


@pytest.mark.parametrize("chunk", [1, 3 * 192, 2**20])
def test_rows_are_read_in_the_order_asked_for(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "CHUNK_BYTES", chunk)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "staged").write_bytes(pixels.tobytes())
    rows = [3, 9, 0, 1, 2, 7, 3]
    chunks = [part.copy() for part in staging.Staged(tmp_path / "staged", 8).chunks(rows)]
    np.testing.assert_array_equal(np.concatenate(chunks), pixels[rows])


def test_a_staged_file_cut_short_is_an_error(tmp_path):
    """Rather than whatever memory held."""
    path = tmp_path / "staged"
    path.write_bytes(bytes(2 * 8 * 8 * 3 - 1))
    with pytest.raises(OSError, match="staged: shorter than"):
        list(staging.Staged(path, 8).chunks([0, 1]))
