"""Axes of parameters: kind, logarithm, places and ticks."""

import pytest

from fieldguide.sweeps.scales import MISSING, describe


def parameter(values):
    return describe({"model.a": values})[0]


@pytest.mark.parametrize(
    ("values", "kind", "log"),
    [
        ([0.1, 0.2, 0.3], "number", False),
        ([1e-5, 1e-4, 1e-3, 1e-2], "number", True),
        ([0.001, 0.002, 0.1], "number", True),
        ([1, 20, 30, 40, 50], "number", False),
        ([0, 1e-5, 1e-1], "number", False),
        ([32, 64, 128], "number", False),
        ([True, False], "boolean", False),
        ([True, 1], "category", False),
        (["32", "16-mixed"], "category", False),
        ([None, None], "category", False),
        ([None, 0.1, 0.2], "number", False),
    ],
)
def test_kind_and_logarithm(values, kind, log):
    found = parameter(values)
    assert (found.kind, found.log) == (kind, log)


def test_places_and_ticks():
    assert parameter([0.5, 0.1]).positions() == [0.5, 0.1]
    assert parameter([0.5, 0.1]).ticks() == [(0.1, "0.1"), (0.5, "0.5")]
    many = parameter([1e-5 * 10 ** (k / 5) for k in range(21)])
    assert many.positions() == pytest.approx([-5 + k / 5 for k in range(21)])
    assert [text for _, text in many.ticks()] == ["1e-05", "0.0001", "0.001", "0.01", "0.1"]
    assert parameter([k / 10 for k in range(20)]).ticks() == []
    assert parameter(["b", "a", "b"]).positions() == [1, 0, 1]
    assert parameter([True, False]).ticks() == [(0, "false"), (1, "true")]


def test_missing_numbers_lie_below():
    found = parameter([None, 1, 9])
    assert found.positions() == [0, 1, 9]
    assert found.ticks()[0] == (0, MISSING)


def test_a_name_that_two_sections_have_is_told_whole():
    labels = [
        one.label for one in describe({"data.seed": [0, 1], "train.seed": [0, 1], "a.b": [1]})
    ]
    assert labels == ["data.seed", "train.seed", "b"]
