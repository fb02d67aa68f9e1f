"""The digest alone decides a photo's shard, so that a data set that grows keeps most shards."""

import hashlib
import random

import pytest

from fieldguide.prepare.shards import MAX_DEPTH, leaves


def digests_of(count, seed=0):
    rng = random.Random(seed)
    return sorted(rng.randbytes(32) for _ in range(count))


def contents(digests, capacity):
    """Return {prefix: digests} of each leaf."""
    return {prefix: digests[place] for prefix, place in leaves(digests, capacity)}


def bits(digest):
    return f"{int.from_bytes(digest, 'big'):0256b}"


def prefix_of(digest, every, capacity):
    """Find by counting the shortest prefix of a digest that at most `capacity` digests share."""
    for length in range(MAX_DEPTH + 1):
        prefix = bits(digest)[:length]
        if sum(bits(other).startswith(prefix) for other in every) <= capacity:
            return prefix
    return prefix


@pytest.mark.parametrize("capacity", [1, 2, 7, 40, 300])
@pytest.mark.parametrize("count", [0, 1, 2, 39, 40, 41, 300])
def test_every_digest_is_in_the_leaf_found_by_counting(count, capacity):
    digests = digests_of(count)
    found = contents(digests, capacity)
    assert [digest for leaf in found.values() for digest in leaf] == digests  # in order, all
    assert all(0 < len(leaf) <= capacity for leaf in found.values())
    by_counting = {digest: prefix_of(digest, digests, capacity) for digest in digests}
    by_leaf = {digest: prefix for prefix, leaf in found.items() for digest in leaf}
    assert by_leaf == by_counting


@pytest.mark.parametrize("capacity", [50, 64, 1000])
def test_random_digests_fill_leaves_evenly(capacity):
    """No leaf has more than its capacity, and all leaves together hold all 20,000 digests."""
    digests = digests_of(20_000)
    found = contents(digests, capacity)
    assert max(map(len, found.values())) <= capacity
    assert sum(map(len, found.values())) == 20_000
    # Leaves are about 69 % full on average (Fagin et al. 1979, section 4).
    assert 0.4 < 20_000 / capacity / len(found) < 1


@pytest.mark.parametrize(("count", "added"), [(3000, 1), (3000, 10), (900, 400), (10, 1)])
def test_added_digests_change_only_their_own_leaves(count, added):
    capacity = 50
    old, new = digests_of(count), digests_of(added, seed=1)
    before, after = contents(old, capacity), contents(sorted(old + new), capacity)
    # The leaf of an added digest is rewritten, or divided if it is full.
    hit = {prefix for prefix in before if any(bits(digest).startswith(prefix) for digest in new)}
    unchanged = {prefix for prefix, leaf in before.items() if after.get(prefix) == leaf}
    assert unchanged == before.keys() - hit
    written = {prefix for prefix, leaf in after.items() if before.get(prefix) != leaf}
    assert all(any(prefix.startswith(one) for one in hit) for prefix in written)


def test_a_leaf_that_is_too_large_becomes_two():
    digests = [bytes([first]) + bytes(31) for first in (0b00000000, 0b01000000, 0b11000000)]
    assert contents(digests, 3) == {"": digests}
    assert contents(digests, 2) == {"0": digests[:2], "1": digests[2:]}
    assert contents(digests, 1) == {"00": digests[:1], "01": digests[1:2], "1": digests[2:]}


def test_copies_share_a_leaf_even_if_it_is_too_large():
    """A test set may hold more copies of a photo than fit into a shard."""
    copy = hashlib.sha256(b"photo").digest()
    others = digests_of(5)
    digests = sorted([copy] * 4 + others)
    found = contents(digests, 3)
    assert found[bits(copy)[:MAX_DEPTH]] == [copy] * 4
    assert sum(map(len, found.values())) == 9
