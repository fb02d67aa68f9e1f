"""Verdicts and their words, for results made by hand."""

import numpy as np
import pytest

from fieldguide.core.errors import RevisionError
from fieldguide.evaluation.predictions import Predictions
from fieldguide.gate.judge import judge
from fieldguide.gate.outcome import CheckResult, Outcome, Status
from fieldguide.results.results import ClassCounts, Missing

ACC_LINE = "  test.acc: {direction: maximize, tolerated_loss: 0.01, significance: 0.02}\n"
ACC = f"metrics:\n{ACC_LINE}"
SCORES = """\
metrics:
  test.bal_acc: {direction: maximize, tolerated_loss: 0.01, significance: 0.005}
  test.macro_f1: {direction: maximize, tolerated_loss: 0.01, significance: 0.02}
  test.ece: {direction: minimize, tolerated_loss: 0.02, significance: 0.02}
"""
CLASS_NAMES = ["ant", "bee", "crab"]
CLASSES = "per_class: {tolerated_loss: 0.05, significance: 0.02}\n"
LOSS = "metrics: {best.val_loss: {direction: minimize, tolerated_loss: 0.1}}\n"


@pytest.fixture
def check(make_checks, make_results):
    """Judges two tables of predictions."""

    def run(text, old, new, **metrics):
        sides = make_results(old), make_results(new, "mine", **metrics)
        return judge(make_checks(text), *sides)

    return run


def test_equal_models_pass(check, make_predictions):
    same = make_predictions()
    outcome = check(ACC + CLASSES + "limits: {model.size: {ratio: 1.0}}", same, same)
    assert outcome.exit_status == 0
    assert (outcome.photos, outcome.paired, outcome.notes) == (600, True, [])
    assert [one.name for one in outcome.checks] == [
        *("test.acc", "recall.ant", "recall.bee", "recall.crab", "model.size")
    ]


def test_grouped_test_photos_are_a_note(make_checks, make_results, make_predictions):
    sides = [make_results(make_predictions(), name) for name in ("main", "mine")]
    sides[1].photos = {name: ClassCounts(0, 0, 200) for name in CLASS_NAMES}
    sides[1].groups = {name: ClassCounts(0, 0, 4) for name in CLASS_NAMES}
    outcome = judge(make_checks(ACC), *sides)
    assert outcome.exit_status == 0
    (note,) = outcome.notes
    assert note.startswith("The 600 test photos are 12 groups: ")
    assert note.endswith(". The p values are too small: chance fails more than promised")


def test_a_lost_accuracy_is_named_with_its_interval(check, make_predictions):
    outcome = check(ACC, make_predictions(), make_predictions(160, 160, 160))
    (found,) = outcome.checks  # 60 of 600 photos lost, none won: Binomial(600, 0.1) / 600
    assert outcome.exit_status == 1
    assert found.change == pytest.approx(-0.1)
    assert found.low < -0.1 < found.high < -0.01
    assert found.reason == (
        "test.acc fell from 0.900 to 0.800: −0.100 (96 % interval −0.125 to −0.075, "
        "p < 0.0001); tolerated: 0.010; most in "
        "ant −0.100 (40 of its 200 photos are called bee, before 20), "
        "bee −0.100 (40 of its 200 photos are called crab, before 20), "
        "crab −0.100 (40 of its 200 photos are called ant, before 20)"
    )
    # The other way round it is a gain.
    assert check(ACC, make_predictions(160, 160, 160), make_predictions()).exit_status == 0


def test_a_loss_that_is_real_but_tolerated_passes(check, make_predictions):
    better, worse = make_predictions(), make_predictions(170, 176, 176)  # 18 of 600 photos, 3 %
    assert check(ACC, better, worse).exit_status == 1
    assert check(ACC.replace("0.01", "0.02"), better, worse).exit_status == 0


def test_a_loss_that_may_be_chance_passes(check, make_predictions):
    # 3 % lost again, but 60 photos more lost and won.
    worse = make_predictions(172, 172, 178)
    worse.probabilities[:30] = [0.1, 0.8, 0.1]
    worse.probabilities[185:200] = worse.probabilities[385:400] = worse.probabilities[:15] * 0
    worse.probabilities[185:200, 0] = worse.probabilities[385:400, 1] = 0.9
    outcome = check(ACC, make_predictions(), worse)
    assert outcome.checks[0].change < -0.01
    assert outcome.exit_status == 0


def test_scores_per_class_and_calibration(check, make_predictions):
    sure = make_predictions(confidence=0.9)  # right 90 % of the time
    outcome = check(SCORES, sure, make_predictions(confidence=0.7))
    assert [one.status for one in outcome.checks] == [Status.PASSED, Status.PASSED, Status.FAILED]
    assert outcome.checks[2].change == pytest.approx(0.2)
    assert "test.ece rose from 0.000 to 0.200: +0.200 (96 % interval" in outcome.checks[2].reason
    outcome = check(SCORES, sure, make_predictions(150, 150, 150))
    for place, name in enumerate(("test.bal_acc", "test.macro_f1")):
        assert outcome.checks[place].change == pytest.approx(-0.15)
        assert f"{name} fell from 0.900 to 0.750" in outcome.checks[place].reason


def test_balanced_accuracy_sees_a_small_class_that_accuracy_hides(check, make_predictions):
    """Of 410 photos the ten of a class are lost: a fortieth of all, a third of the mean recall."""

    def small(predictions):
        rows = np.r_[0:400, 400:410]
        arrays = predictions.labels[rows], predictions.probabilities[rows]
        return Predictions([predictions.sources[k] for k in rows], predictions.classes, *arrays)

    old, new = small(make_predictions(180, 180, 200)), small(make_predictions(180, 180, 0))
    acc, balanced = check(ACC + ACC_LINE.replace("acc", "bal_acc"), old, new).checks
    assert acc.change == pytest.approx(-10 / 410)
    assert balanced.change == pytest.approx(-1 / 3)
    assert (balanced.reference, balanced.status) == (pytest.approx(2.8 / 3), Status.FAILED)


def test_the_strictest_check_with_the_fewest_resamples_can_fail(check, make_predictions):
    text = "metrics: {test.macro_f1: {direction: maximize, tolerated_loss: 0, significance: 0.001}}"
    outcome = check(text, make_predictions(), make_predictions(0, 0, 0))
    assert outcome.checks[0].p == 0.001  # 1 / (999 + 1)
    assert outcome.exit_status == 1


def test_one_class_cannot_collapse_behind_a_good_mean(check, make_predictions):
    outcome = check(ACC + CLASSES, make_predictions(150, 180, 180), make_predictions(190, 140, 190))
    assert outcome.checks[0].change > 0
    assert [one.name for one in outcome.of(Status.FAILED)] == ["recall.bee"]
    assert outcome.of(Status.FAILED)[0].reason == (
        "recall.bee fell from 0.900 to 0.700: −0.200 (98.7 % interval −0.270 to −0.135, "
        "p < 0.0001); tolerated: 0.050; 60 of its 200 photos are called crab, before 20"
    )


def test_bounds_hold_without_a_reference_and_whatever_it_has(check, make_predictions):
    bounds = "metrics: {test.acc: {direction: maximize, floor: 0.95}, x: {direction: minimize, "
    bounds += "ceiling: 1}}\nper_class: {tolerated_loss: 0.5, significance: 0.02, floor: 0.85}\n"
    same = make_predictions(190, 170, 160)
    outcome = check(bounds, same, same, x=2.5)
    assert [one.reason for one in outcome.of(Status.FAILED)] == [
        "test.acc is 0.867; allowed: 0.950 or more",
        "x is 2.500; allowed: 1.000 or less",
        "recall.crab is 0.800; allowed: 0.850 or more",
    ]


def test_without_a_significance_the_tolerance_alone_decides(
    make_checks, make_results, make_predictions
):
    same, checks = make_predictions(), make_checks(LOSS)
    old = make_results(same, best__val_loss=0.7)
    for value, status in ((0.8, 0), (0.81, 1), (0.1, 0)):
        assert judge(checks, old, make_results(same, best__val_loss=value)).exit_status == status
    outcome = judge(checks, old, make_results(same, best__val_loss=0.9))
    assert outcome.checks[0].reason == (
        "best.val_loss rose from 0.700 to 0.900: +0.200; tolerated: 0.100"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.7, None), (1, "best.val_loss of mine: missing; allowed: a finite number")),
        ((0.7, "nan"), (1, "best.val_loss of mine: found 'nan'; allowed: a finite number")),
        ((0.7, True), (1, "best.val_loss of mine: found True; allowed: a finite number")),
        ((0.7, float("inf")), (1, "best.val_loss of mine: found inf; allowed: a finite number")),
        (("nan", "nan"), (1, "best.val_loss of mine: found 'nan'; allowed: a finite number")),
        ((None, 0.7), (2, "best.val_loss of main: missing; allowed: a finite number")),
        ((float("nan"), 0.7), (2, "best.val_loss of main: found nan; allowed: a finite number")),
        (("x", None), (2, "best.val_loss of main: found 'x'; allowed: a finite number")),
        ((None, None), (2, "best.val_loss: missing on both sides; did you mean best.val_acc?")),
    ],
)
def test_what_is_no_number_never_passes(
    make_checks, make_results, make_predictions, values, expected
):
    same = make_predictions()
    sides = [
        make_results(same, name, best__val_loss=value, best__val_acc=1.0)
        for name, value in zip(("main", "mine"), values, strict=True)
    ]
    outcome = judge(make_checks(LOSS), *sides)
    assert (outcome.exit_status, outcome.checks[0].reason) == expected


def test_limits(make_checks, make_results, make_predictions):
    same = make_predictions()
    checks = make_checks(
        "limits: {model.size: {ratio: 1.5, ceiling: 2000}, train.seconds: {ratio: 1.2}}"
    )

    def reasons(**metrics):
        old, new = make_results(same, seconds=100), make_results(same, "mine", **metrics)
        return [one.reason for one in judge(checks, old, new).checks if one.reason]

    assert reasons(size=1500, seconds=120) == []
    assert reasons(size=2001, seconds=121) == [
        (
            "model.size is 2,001; allowed: 2,000 or less; "
            "model.size rose from 1,000 to 2,001; allowed: 1.5 times as much"
        ),
        "train.seconds rose from 100 to 121; allowed: 1.2 times as much",
    ]


def test_the_time_of_another_model_is_not_tested(make_checks, make_results, make_predictions):
    checks = make_checks("limits: {train.seconds: {ratio: 1.2}}")
    old, new = (make_results(make_predictions(), name) for name in ("main", "mine"))
    new.timing = Missing("metrics/timing.json", "mine", "not of this model")
    outcome = judge(checks, old, new)
    assert (outcome.exit_status, outcome.checks[0].status) == (0, Status.UNTESTED)
    assert outcome.checks[0].reason == (
        "train.seconds: metrics/timing.json of mine: not of this model"
    )
    new.timing = Missing("metrics/timing.json", "mine", "not what `train` writes", damaged=True)
    assert judge(checks, old, new).exit_status == 1


def test_without_predictions_counts_decide(make_checks, make_results, make_predictions):
    metrics = "".join(text.removeprefix("metrics:\n") for text in (SCORES, ACC_LINE))
    checks = make_checks(
        f"metrics:\n{metrics}{CLASSES}".replace("significance: 0.02", "significance: 0.01")
    )
    old = make_results(make_predictions(), keep=False)
    outcome = judge(checks, old, make_results(make_predictions(180, 120, 180), "mine"))
    states = {one.name: one.status for one in outcome.checks}
    assert states == {
        "test.bal_acc": Status.UNTESTED,
        "test.macro_f1": Status.UNTESTED,
        "test.ece": Status.UNTESTED,
        "test.acc": Status.FAILED,
        "recall.ant": Status.PASSED,
        "recall.bee": Status.FAILED,
        "recall.crab": Status.PASSED,
    }
    assert outcome.checks[3].method == "Fisher, two-proportion interval"
    assert outcome.paired is False
    assert outcome.notes == [
        "compared by counts, not photo by photo: metrics/predictions.csv of main: cannot be had"
    ]


def test_without_predictions_and_counts_nothing_is_compared(
    make_checks, make_results, make_predictions
):
    old, new = (make_results(make_predictions(), name, keep=False) for name in ("main", "mine"))
    assert judge(make_checks(CLASSES), old, new).exit_status == 0
    new.confusion = Missing("plots/confusion.csv", "mine", "not in its dvc.lock; run `dvc repro`")
    with pytest.raises(RevisionError, match=r"plots/confusion\.csv of mine: not in its dvc\.lock"):
        judge(make_checks(CLASSES), old, new)


def test_a_lost_metrics_file_fails_and_is_named(make_checks, make_results, make_predictions):
    old, new = (make_results(make_predictions(), name) for name in ("main", "mine"))
    new.train_metrics = Missing("metrics/train/metrics.json", "mine", "not in its dvc.lock")
    outcome = judge(make_checks("limits: {parameters.all: {ratio: 1.5}}"), old, new)
    assert outcome.exit_status == 1
    assert outcome.checks[0].reason == "parameters.all of mine: missing; allowed: a finite number"
    assert outcome.notes == ["metrics/train/metrics.json of mine: not in its dvc.lock"]


@pytest.mark.parametrize("keep", [True, False])
def test_a_class_that_only_one_side_knows(make_checks, make_results, make_predictions, keep):
    # The candidate learned a class without test photos, and predicts it once in place of ant.
    more = make_predictions(classes=["ant", "bee", "crab", "dove"])
    more.probabilities[0] = [0.1, 0.0, 0.0, 0.9]
    sides = make_results(make_predictions()), make_results(more, "mine", keep=keep)
    outcome = judge(make_checks(ACC + CLASSES), *sides)
    assert outcome.exit_status == 0
    assert [one.name for one in outcome.checks[1:]] == ["recall.ant", "recall.bee", "recall.crab"]
    assert outcome.checks[1].change == pytest.approx(-1 / 200)


def test_predictions_of_other_photos_are_not_compared(check, make_predictions):
    other = make_predictions()
    with pytest.raises(
        RevisionError, match=r"predictions\.csv of main and mine are not of the same"
    ):
        check(ACC, make_predictions(), other._replace(sources=other.sources[::-1]))
    with pytest.raises(
        RevisionError, match=r"predictions\.csv of main and mine are not of the same"
    ):
        check(ACC, make_predictions(), other._replace(labels=np.roll(other.labels, 1)))


def test_a_regression_stays_one_whatever_else_cannot_be_compared():
    lost, unknown = CheckResult("a", Status.FAILED), CheckResult("b", Status.IMPOSSIBLE)
    assert Outcome("main", "mine", [unknown, lost]).exit_status == 1
    assert Outcome("main", "mine", [unknown]).exit_status == 2
    assert Outcome("main", "mine", [CheckResult("c", Status.UNTESTED)]).exit_status == 0
    assert Outcome("main", "mine", refused="x").exit_status == 2
