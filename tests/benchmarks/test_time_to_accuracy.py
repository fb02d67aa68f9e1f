"""Seconds until a training reaches an accuracy."""

from __future__ import annotations

import math

import pytest
from time_to_accuracy import Epoch, describe, first_at

EPOCHS = [Epoch(0, 5.0, 0.30), Epoch(1, 7.0, 0.55), Epoch(2, 9.0, 0.50), Epoch(3, 11.0, 0.60)]


@pytest.mark.parametrize(
    ("target", "seconds"),
    [(0.30, 5.0), (0.50, 7.0), (0.55, 7.0), (0.58, 11.0), (0.61, math.inf)],
)
def test_the_first_epoch_of_at_least_the_target(target: float, seconds: float) -> None:
    assert first_at(EPOCHS, target) == seconds


def test_the_limit_says_where_the_seconds_go() -> None:
    original = [Epoch(0, 40.0, 0.40), Epoch(1, 70.0, 0.52)]

    told = describe({"fieldguide": [EPOCHS], "the original recipe": [original]}, 3.21)

    # 2 s from the first epoch's end to the second's; the first ends at 5 s, 3 s after the start.
    assert "epochs of 2.0 s after a start of 3.0 s" in told
    assert "`prepare` took 3.2 s" in told
    assert "epochs took 70 s. It ends at 52.0%, fieldguide at 60.0%" in told
