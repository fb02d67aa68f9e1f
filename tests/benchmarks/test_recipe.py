"""The table of benchmarks/recipe.py."""

import pytest
import recipe

KIND = {"data": "sample", "dataset": "0", "size": 32, "epochs": 12, "set": {}}


def row(variant, seed, *, val, test, flip=0.5, cpu=100.0, like=None):
    """Return a training's result; `like` names the variant that has the same params."""
    scores = {"val_acc": val, "test_acc": test, "flip_averaged_acc": flip, "cpu_seconds": cpu}
    params = {"model": {}, "train": {"knob": like or variant, "seed": seed}}
    return {**KIND, "variant": variant, "seed": seed, "params": params, **scores}


@pytest.fixture
def lines():
    rows = [
        row("before", 0, val=0.70, test=0.60, flip=0.61),
        row("before", 1, val=0.72, test=0.64, flip=0.65),
        row("mixup", 0, val=0.99, test=0.99),  # the next line replaces it
        row("mixup", 0, val=0.73, test=0.62, flip=0.60, cpu=150.0),
        row("mixup", 1, val=0.73, test=0.62, flip=0.64, cpu=150.0),
        row("CutMix", 2, val=0.99, test=0.99),  # "before" has no such seed
        row("trained on val too", 0, val=None, test=0.66, flip=0.66),
    ]
    return recipe.table(KIND, rows).splitlines()


def test_differences_are_between_trainings_of_the_same_seed(lines):
    # The standard deviation of two values is |a - b| / sqrt(2): 1.4 points for 0.70 and 0.72.
    expected = "| before | 12 | 71.0 ± 1.4 |  | 62.0 ± 2.8 |  | +1.0 ± 0.0 | × 1.00 | 2 |"
    assert expected in lines
    # +3 and +1 by val, +2 and -2 by test, -2 and +2 for the mirror images.
    expected = (
        "| mixup | 12 | 73.0 ± 0.0 | +2.0 ± 1.4 | 62.0 ± 0.0 | +0.0 ± 2.8 | +0.0 ± 2.8 "
        "| × 1.50 | 2 |"
    )
    assert expected in lines


def test_variants_with_equal_params_share_their_trainings():
    rows = [
        row("before", 0, val=0.70, test=0.60),
        row("before", 1, val=0.72, test=0.64),
        row("whitening", 0, val=0.73, test=0.62),
        row("params.yaml", 1, val=0.75, test=0.66, like="whitening"),
        row("mixup", 1, val=0.99, test=0.99),
    ]
    lines = recipe.table(KIND, rows).splitlines()
    values = "12 | 74.0 ± 1.4 | +3.0 ± 0.0 | 64.0 ± 2.8 | +2.0 ± 0.0 | -14.0 ± 2.8 | × 1.00 | 2 |"
    assert f"| whitening | {values}" in lines
    assert f"| params.yaml | {values}" in lines


def test_a_missing_figure_is_shown_as_missing(lines):
    assert not [line for line in lines if line.startswith("| CutMix |")]  # no pair of seeds
    assert "| trained on val too | 12 | – | – | 66.0 | +6.0 | +0.0 | × 1.00 | 1 |" in lines
    assert {line.count("|") for line in lines if line.startswith("|")} == {10}


def test_the_title_names_the_photos(lines):
    assert lines[0] == "sample, 32 pixels"


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_the_params_of_every_variant_are_allowed_at_32_pixels(variant):
    recipe.params_of(32, recipe.BEFORE | recipe.VARIANTS[variant])
