"""Two models on the same photos, against all resamples, hand counts and the exact distribution."""

import itertools

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.stats import multinomial

from fieldguide.gate.paired import Sums, compare_shares, compare_sums, holm


def hits(lost, won, both=0, neither=0):
    """Make the hits of both models, with so many photos lost, won, right in both and in neither."""
    old = np.repeat([True, False, True, False], [lost, won, both, neither])
    new = np.repeat([False, True, True, False], [lost, won, both, neither])
    return old, new


def compare(lost, won, *, photos, tolerated=0.0, level=0.05):
    both = photos - lost - won
    return compare_shares(*hits(lost, won, both), tolerated=tolerated, level=level)


def loss(found):
    return found.reference - found.candidate


def resamples(values):
    """Make every bootstrap sample."""
    return np.array(list(itertools.product(values, repeat=len(values))))


def test_mcnemars_p_by_hand():
    # 12 photos differ, 10 of them lost: (C(12,10) + C(12,11) + 1) / 2^12 = 79 / 4096.
    assert compare(10, 2, photos=1000).p == pytest.approx(79 / 4096)
    assert loss(compare(10, 2, photos=1000)) == pytest.approx(0.008)


def test_a_gain_and_a_draw_are_no_loss():
    assert compare(0, 0, photos=50) == (1, 1, 0, 0, 0.9, 1, "McNemar, paired bootstrap")
    assert compare(5, 5, photos=50).p > 0.5
    assert compare(2, 30, photos=50).p > 0.999


@pytest.mark.parametrize("tolerated", [0.0, 0.2, 0.45])
def test_the_bootstrap_of_a_share_equals_all_resamples(tolerated):
    each = [-1, -1, -1, 1, 0, 0]  # three photos lost, one won
    changes = resamples(each).mean(axis=1)
    found = compare(3, 1, photos=6, tolerated=tolerated, level=0.1)
    chance = 5 / 16  # (C(4,3) + 1) / 2^4
    assert found.p == pytest.approx(max(chance, (changes >= -tolerated - 1e-9).mean()))
    ordered = np.sort(-changes)
    low, high = (-ordered[int(np.ceil(q * len(ordered))) - 1] for q in (0.9, 0.1))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_many_photos_agree_with_the_normal_approximation():
    found = compare(60_000, 58_000, photos=1_000_000, level=0.025)
    error = np.sqrt(0.118 - 0.002**2) / 1000
    assert (found.low, found.high) == pytest.approx(
        (-0.002 - 1.96 * error, -0.002 + 1.96 * error), abs=2e-6
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
        assert (found.p < 0.02) == (found.high < -0.05)


def sums(values):
    """Make a score that is the square of the mean of (N,) values."""
    terms = csr_array(np.asarray(values, dtype=np.float64)[:, None])
    return Sums(terms, lambda total: (total[:, 0] / len(values)) ** 2)


@pytest.mark.parametrize("sign", [1, -1])
def test_permutation_and_bootstrap_of_sums_equal_all_resamples(sign):
    old, new = np.array([3.0, 1, 2, 2, 5, 4]), np.array([1.0, 2, 0, 1, 1, 3])
    if sign < 0:  # an error: the candidate's is larger
        old, new = new, old
    found_loss = sign * (old.mean() ** 2 - new.mean() ** 2)
    swaps = np.array(list(itertools.product([0, 1], repeat=6)))
    mixed = (np.where(swaps, new, old), np.where(swaps, old, new))
    swapped = sign * (mixed[0].mean(axis=1) ** 2 - mixed[1].mean(axis=1) ** 2)
    rows = resamples(range(6))
    drawn = sign * (old[rows].mean(axis=1) ** 2 - new[rows].mean(axis=1) ** 2)

    settings = {"sign": sign, "level": 0.05, "resamples": 50_000, "seed": 0}
    found = compare_sums(sums(old), sums(new), tolerated=0.0, **settings)
    assert sign * loss(found) == pytest.approx(found_loss)
    assert found.p == pytest.approx((swapped >= found_loss - 1e-9).mean(), abs=0.005)
    found = compare_sums(sums(old), sums(new), tolerated=3.0, **settings)
    assert found.p == pytest.approx((drawn <= 3.0).mean(), abs=0.01)
    low, high = np.quantile(-sign * drawn, [0.05, 0.95])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15)


def test_resamples_come_from_the_seed_and_in_chunks():
    rng = np.random.default_rng(0)
    old, new = rng.normal(1, 1, 3000), rng.normal(0.9, 1, 3000)
    settings = {"sign": 1, "tolerated": 0.0, "level": 0.05, "resamples": 2000}
    drawn = [compare_sums(sums(old), sums(new), **settings, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert loss(drawn[0]) == loss(drawn[2])
    assert drawn[0].low != drawn[2].low
    # The delta method: 2 × mean × the standard error of the mean difference.
    assert drawn[0].high - drawn[0].low == pytest.approx(
        2 * 1.645 * np.std(2 * old.mean() * old - 2 * new.mean() * new) / np.sqrt(3000), rel=0.1
    )


def test_holm_by_hand():
    # 4 × 0.005; 3 × 0.01; 2 × 0.03; and 0.04, raised to the value before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
