"""Two shares compared by their counts, against published examples."""

import pytest

from fieldguide.gate.unpaired import Count, compare_counts, newcombe


def test_newcombes_published_interval():
    # Newcombe 1998, table II (a), method 10: 56/70 − 48/80, 95 %.
    low, high = newcombe(Count(56, 70), Count(48, 80), level=0.025)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_fishers_tea():
    # C(4,3)·C(4,1)/C(8,4) + 1/C(8,4) = 17/70.
    found = compare_counts(Count(3, 4), Count(1, 4), tolerated=0.0, level=0.05)
    assert found.p == pytest.approx(17 / 70)
    assert (found.reference, found.candidate) == (0.75, 0.25)


def test_a_certain_loss_has_the_p_value_of_the_tolerance():
    level = 0.03
    low, _ = newcombe(Count(700, 1000), Count(600, 1000), level=level)
    found = compare_counts(Count(700, 1000), Count(600, 1000), tolerated=low, level=0.05)
    assert found.p == pytest.approx(level, rel=1e-4)  # the interval begins at `low` at that level


@pytest.mark.parametrize("lost", [0, 1, 20, 200, 1000])
def test_p_and_interval_decide_alike(lost):
    found = compare_counts(Count(1000, 1000), Count(1000 - lost, 1000), tolerated=0.02, level=0.01)
    assert (found.p < 0.01) == (found.high < -0.02)
    assert (lost >= 200) == (found.p < 0.01)


def test_a_gain_is_no_loss():
    found = compare_counts(Count(0, 10), Count(10, 10), tolerated=0.0, level=0.05)
    assert found.p == 1.0
    assert found.candidate == 1.0
