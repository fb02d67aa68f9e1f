"""Chunks have limits, and pixels of the staged file are read in the requested order."""

import numpy as np
import pytest

from fieldguide.prepare import staging
from fieldguide.prepare.archive import open_archive
from fieldguide.prepare.staging import Staged, mean_and_std


@pytest.fixture
def chunks_of(tmp_path, pack, make_params):
    """Rows of each chunk of photos with so many bytes, stored at `pixels`: chunks_of([10], 8)."""

    def make(sizes, pixels):
        files = {f"{k:03d}.jpg": bytes(size) for k, size in enumerate(sizes)}
        with open_archive(pack(tmp_path / "photos.tar", files)) as archive:
            params = make_params(data={"image_size": pixels}, model={"conv_layers": 2})
            return staging._chunks(archive, archive.members, params.data)

    return make


def test_a_chunk_is_limited_in_photos_in_bytes_and_in_pixels(chunks_of):
    assert [len(chunk) for chunk in chunks_of([1] * 40, 8)] == [16, 16, 8]
    # The chunk that reaches 1 MiB is full: 400,000 × 3.
    assert [len(chunk) for chunk in chunks_of([400_000] * 7, 8)] == [3, 3, 1]
    assert [len(chunk) for chunk in chunks_of([1] * 5, 400)] == [2, 2, 1]  # 480,000 bytes of 1 MiB
    assert chunks_of([], 8) == []


def test_every_photo_is_in_one_chunk(chunks_of):
    chunks = chunks_of([1, 10**6, 10**6, 5] * 9, 8)
    assert [row for chunk in chunks for row in chunk] == list(range(36))


@pytest.mark.parametrize("block_bytes", [1, 3 * 192, 2**20])
def test_rows_are_read_in_the_requested_order(block_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "_BLOCK_BYTES", block_bytes)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "staged").write_bytes(pixels.tobytes())
    rows = [3, 9, 0, 1, 2, 7, 3]
    blocks = list(Staged(tmp_path / "staged", 8).blocks(rows))
    np.testing.assert_array_equal(np.concatenate(blocks), pixels[rows])


def test_mean_and_std_do_not_depend_on_blocks_or_order():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    mean, std = mean_and_std([pixels])
    assert mean_and_std([pixels[20:], pixels[:7], pixels[7:20]]) == (mean, std)
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)) / 255, atol=1e-6)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 1, 2)) / 255, atol=1e-6)


def test_the_largest_block_of_white_photos_does_not_overflow():
    """66,051 squares of 255 fit into 32 bits; a block of 1 MiB holds at most 5,461 photos."""
    white = np.full((66_051, 1, 2, 3), 255, np.uint8)
    assert mean_and_std([white, white]) == ([1, 1, 1], [0, 0, 0])
