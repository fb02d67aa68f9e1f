"""Two models on the same photos: against enumeration, hand counts and the exact null."""

import itertools

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import multinomial

from fieldguide.gate.paired import Draw, Sums, compare_shares, compare_sums, holm


def hits(lost, won, both=0, neither=0):
    """Hits of reference and candidate with given counts of photos."""
    old = np.repeat([True, False, True, False], [lost, won, both, neither])
    new = np.repeat([False, True, True, False], [lost, won, both, neither])
    return old, new


def compare(lost, won, *, photos, tolerated=0.0, level=0.05):
    both = photos - lost - won
    return compare_shares(*hits(lost, won, both), tolerated=tolerated, level=level)


def resamples(values):
    """Every way to draw as many photos as there are, with replacement."""
    return np.array(list(itertools.product(values, repeat=len(values))))


def test_mcnemars_p_by_hand():
    # 12 photos differ, 10 of them lost: (C(12,10) + C(12,11) + 1) / 2^12 = 79 / 4096.
    assert compare(10, 2, photos=1000).p == pytest.approx(79 / 4096)
    assert compare(10, 2, photos=1000).loss == pytest.approx(0.008)


def test_a_gain_and_a_draw_are_no_loss():
    assert compare(0, 0, photos=50) == (0, 0, 0, 1, "McNemar, paired bootstrap")
    assert compare(5, 5, photos=50).p > 0.5
    assert compare(2, 30, photos=50).p > 0.999


@pytest.mark.parametrize("tolerated", [0.0, 0.2, 0.45])
def test_the_bootstrap_of_a_share_is_that_of_all_resamples(tolerated):
    each = [1, 1, 1, -1, 0, 0]  # three photos lost, one won
    losses = resamples(each).mean(axis=1)
    found = compare(3, 1, photos=6, tolerated=tolerated, level=0.1)
    chance = 5 / 16  # (C(4,3) + 1) / 2^4
    assert found.p == pytest.approx(max(chance, (losses <= tolerated + 1e-9).mean()))
    ordered = np.sort(losses)
    low, high = (ordered[int(np.ceil(q * len(ordered))) - 1] for q in (0.1, 0.9))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_many_photos_agree_with_the_normal_approximation():
    found = compare(60_000, 58_000, photos=1_000_000, level=0.025)
    error = np.sqrt(0.118 - 0.002**2) / 1000
    assert (found.low, found.high) == pytest.approx(
        (0.002 - 1.96 * error, 0.002 + 1.96 * error), abs=2e-6
    )


@pytest.mark.parametrize("differing", [0.1, 0.4])
@pytest.mark.parametrize("level", [0.01, 0.05])
def test_equal_models_fail_no_more_often_than_the_significance(differing, level):
    photos, rate = 25, 0.0
    chances = [differing / 2, differing / 2, 1 - differing]
    for lost in range(photos + 1):
        for won in range(photos + 1 - lost):
            if compare(lost, won, photos=photos, level=level).p < level:
                rate += multinomial.pmf([lost, won, photos - lost - won], photos, chances)
    assert 0 < rate <= level


def test_a_loss_within_tolerance_fails_as_seldom():
    photos, rate = 40, 0.0
    for lost in range(photos + 1):
        for won in range(photos + 1 - lost):
            if compare(lost, won, photos=photos, tolerated=0.1, level=0.05).p < 0.05:
                rate += multinomial.pmf([lost, won, photos - lost - won], photos, [0.3, 0.2, 0.5])
    assert 0 < rate < 0.06  # the bootstrap is no exact test


def test_p_and_interval_decide_alike():
    for lost in range(30, 60):
        found = compare(lost, 20, photos=200, tolerated=0.05, level=0.02)
        assert (found.p < 0.02) == (found.low > 0.05)


def sums(values):
    """A score that is the square of the mean of (N,) values."""
    terms = csr_array(np.asarray(values, dtype=np.float64)[:, None])
    return Sums(terms, lambda total: (total[:, 0] / len(values)) ** 2)


@pytest.mark.parametrize("sign", [1, -1])
def test_permutation_and_bootstrap_of_sums_are_those_of_all_resamples(sign):
    old, new = np.array([3.0, 1, 2, 2, 5, 4]), np.array([1.0, 2, 0, 1, 1, 3])
    if sign < 0:  # an error: the candidate's is larger
        old, new = new, old
    loss = sign * (old.mean() ** 2 - new.mean() ** 2)
    swaps = np.array(list(itertools.product([0, 1], repeat=6)))
    mixed = (np.where(swaps, new, old), np.where(swaps, old, new))
    swapped = sign * (mixed[0].mean(axis=1) ** 2 - mixed[1].mean(axis=1) ** 2)
    rows = resamples(range(6))
    drawn = sign * (old[rows].mean(axis=1) ** 2 - new[rows].mean(axis=1) ** 2)

    found = compare_sums(
        sums(old), sums(new), sign=sign, tolerated=0.0, level=0.05, draw=Draw(50_000, 0)
    )
    assert found.loss == pytest.approx(loss)
    assert found.p == pytest.approx((swapped >= loss - 1e-9).mean(), abs=0.005)
    found = compare_sums(
        sums(old), sums(new), sign=sign, tolerated=3.0, level=0.05, draw=Draw(50_000, 0)
    )
    assert found.p == pytest.approx((drawn <= 3.0).mean(), abs=0.01)
    low, high = np.quantile(drawn, [0.05, 0.95])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15)


def test_resamples_come_from_the_seed_and_in_chunks():
    rng = np.random.default_rng(0)
    old, new = rng.normal(1, 1, 3000), rng.normal(0.9, 1, 3000)
    draw = [
        compare_sums(sums(old), sums(new), sign=1, tolerated=0.0, level=0.05, draw=Draw(2000, seed))
        for seed in (0, 0, 1)
    ]
    assert draw[0] == draw[1]
    assert draw[0].loss == draw[2].loss
    assert draw[0].low != draw[2].low
    # The delta method: 2 × mean × the standard error of the mean difference.
    assert draw[0].high - draw[0].low == pytest.approx(
        2 * 1.645 * np.std(2 * old.mean() * old - 2 * new.mean() * new) / np.sqrt(3000), rel=0.1
    )


def test_holm_by_hand():
    # 4 × 0.005; 3 × 0.01; 2 × 0.03; and 0.04, which may not be below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
