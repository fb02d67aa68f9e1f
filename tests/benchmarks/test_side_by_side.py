"""Ratio and verdict of a row, and the order in which contenders are measured."""

import math
from dataclasses import replace

from side_by_side import OURS, Row, in_turn


def make_row(measured, *, against="other", bound=2.0, at_least=True):
    return Row("work", "images/s", measured, against, bound, at_least=at_least, limit="memory")


def test_the_ratio_is_the_median_of_the_ratios_of_each_repeat():
    row = make_row({OURS: [10, 30, 40], "other": [5, 10, 40]})  # 2, 3, 1; not 30/10
    assert row.ratio == 2
    assert row.met  # exactly the bound


def test_a_bound_can_be_the_largest_allowed_value():
    assert make_row({OURS: [3.0], "other": [10.0]}, bound=0.3, at_least=False).met
    assert not make_row({OURS: [3.1], "other": [10.0]}, bound=0.3, at_least=False).met


def test_without_another_contender_the_median_is_compared_with_the_bound():
    row = make_row({OURS: [0.5, 0.1, 0.2]}, against=None, bound=0.3, at_least=False)
    assert row.ratio == 0.2
    assert row.met


def test_a_row_compared_with_a_contender_that_was_left_out_does_not_meet_its_target():
    row = replace(make_row({OURS: [3.0]}), left_out={"other": "does not build here"})
    assert math.isnan(row.ratio)
    assert not row.met


def test_every_second_repeat_has_the_opposite_order(capsys):
    calls = []

    def contender(name):
        def measure():
            calls.append(name)
            return float(len(calls))

        return measure

    found = in_turn({name: contender(name) for name in "abc"}, 3)
    assert "".join(calls) == "abccbaabc"
    assert found == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}
    assert len(capsys.readouterr().out.splitlines()) == 9
