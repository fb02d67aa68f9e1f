"""Who is in which shard: by the digest alone, so that a grown data set keeps most of them."""

import hashlib
import random

import numpy as np
import pytest

from fieldguide.prepare.shards import MAX_DEPTH, Moments, leaves


def digests_of(count, seed=0):
    rng = random.Random(seed)
    return sorted(rng.randbytes(32) for _ in range(count))


def contents(digests, capacity):
    """{prefix: digests} of each leaf."""
    return {leaf.prefix: digests[leaf.first : leaf.end] for leaf in leaves(digests, capacity)}


def bits(digest):
    return f"{int.from_bytes(digest, 'big'):0256b}"


def prefix_of(digest, every, capacity):
    """The shortest prefix of a digest that few enough share: by counting, without any tree."""
    for length in range(MAX_DEPTH + 1):
        prefix = bits(digest)[:length]
        if sum(bits(other).startswith(prefix) for other in every) <= capacity:
            return prefix
    return prefix


@pytest.mark.parametrize("capacity", [1, 2, 7, 40, 300])
@pytest.mark.parametrize("count", [0, 1, 2, 39, 40, 41, 300])
def test_every_photo_is_in_the_leaf_that_counting_says(count, capacity):
    digests = digests_of(count)
    found = contents(digests, capacity)
    assert [digest for leaf in found.values() for digest in leaf] == digests  # in order, all
    assert all(0 < len(leaf) <= capacity for leaf in found.values())
    by_counting = {digest: prefix_of(digest, digests, capacity) for digest in digests}
    by_leaf = {digest: prefix for prefix, leaf in found.items() for digest in leaf}
    assert by_leaf == by_counting


@pytest.mark.parametrize("capacity", [50, 64, 1000])
def test_random_digests_fill_leaves_evenly(capacity):
    """20,000 photos: each leaf at most full, all of them together all photos."""
    digests = digests_of(20_000)
    found = contents(digests, capacity)
    assert max(map(len, found.values())) <= capacity
    assert sum(map(len, found.values())) == 20_000
    # Of balls in 2^d leaves: about 69 % full on average (Fagin et al. 1979, section 4).
    assert 0.4 < 20_000 / capacity / len(found) < 1


@pytest.mark.parametrize(("count", "added"), [(3000, 1), (3000, 10), (900, 400), (10, 1)])
def test_an_addition_changes_only_the_leaves_that_the_photos_fall_into(count, added):
    capacity = 50
    old, new = digests_of(count), digests_of(added, seed=1)
    before, after = contents(old, capacity), contents(sorted(old + new), capacity)
    # The leaf of an added photo is rewritten, or split where it overflows: both by prefix.
    hit = {prefix for prefix in before if any(bits(digest).startswith(prefix) for digest in new)}
    unchanged = {prefix for prefix, leaf in before.items() if after.get(prefix) == leaf}
    assert unchanged == before.keys() - hit
    written = {prefix for prefix, leaf in after.items() if before.get(prefix) != leaf}
    assert all(any(prefix.startswith(one) for one in hit) for prefix in written)


def test_a_full_leaf_becomes_two():
    digests = [bytes([first]) + bytes(31) for first in (0b00000000, 0b01000000, 0b11000000)]
    assert contents(digests, 3) == {"": digests}
    assert contents(digests, 2) == {"0": digests[:2], "1": digests[2:]}
    assert contents(digests, 1) == {"00": digests[:1], "01": digests[1:2], "1": digests[2:]}


def test_copies_that_no_bit_parts_share_a_leaf_that_is_too_large():
    """A test set may hold more copies of a photo than a shard takes."""
    copy = hashlib.sha256(b"photo").digest()
    others = digests_of(5)
    digests = sorted([copy] * 4 + others)
    found = contents(digests, 3)
    assert found[bits(copy)[:MAX_DEPTH]] == [copy] * 4
    assert sum(map(len, found.values())) == 9


def test_moments_of_parts_are_those_of_the_whole_in_any_order():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    whole, merged = Moments(), Moments()
    whole.add(pixels)
    for part in (pixels[20:], pixels[:7], pixels[7:20]):
        one = Moments()
        one.add(part)
        merged.merge(one)
    assert merged.mean_and_std() == whole.mean_and_std()
    mean, std = whole.mean_and_std()
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)) / 255, atol=1e-6)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 1, 2)) / 255, atol=1e-6)


def test_moments_of_many_white_photos_do_not_overflow():
    """72,000 rows of pixels in one chunk; 32 bits hold 66,051 squares of 255."""
    moments = Moments()
    moments.add(np.full((9000, 8, 8, 3), 255, np.uint8))
    assert moments.mean_and_std() == ([1, 1, 1], [0, 0, 0])
