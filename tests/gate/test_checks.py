"""checks.yaml: what is read, and the messages about mistakes."""

from pathlib import Path

import pytest

from fieldguide.core.errors import ParamsError
from fieldguide.core.params import load_yaml
from fieldguide.gate.checks import Checks

ROOT = Path(__file__).resolve().parents[2]
ACC = "metrics: {test.acc: {direction: maximize, tolerated_loss: 0.01, significance: 0.02}}\n"


def test_the_file_of_this_project():
    checks = load_yaml(ROOT / "checks.yaml", Checks)
    assert set(checks.metrics) == {"test.acc", "test.bal_acc", "test.macro_f1", "test.ece"}
    shares = [one.significance for one in checks.metrics.values()]
    assert sum(shares) + checks.per_class.significance == pytest.approx(checks.significance)
    assert set(checks.limits) == {"model.size", "parameters.all"}  # train.seconds is a comment


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "metrics, per_class, limits: all are empty; allowed: one check"),
        ("metric: {}\n" + ACC, r"metric: unknown key; did you mean metrics\?"),
        (ACC.replace("tol", "t0l"), r"metrics\.test\.acc\.t0lerated_loss: unknown key; did you me"),
        (
            ACC.replace("maximize", "up"),
            r"metrics\.test\.acc\.direction: found 'up'; allowed: 'max",
        ),
        (ACC.replace("maximize", "minimize"), "direction: found minimize; allowed: maximize"),
        (ACC.replace("0.01", "true"), r"metrics\.test\.acc\.tolerated_loss: found True; allowed"),
        (ACC.replace("0.01", ".nan"), r"tolerated_loss: found nan; allowed: a finite number"),
        (ACC.replace("0.01", "'0.01'"), r"tolerated_loss: found '0\.01'; allowed: number"),
        (
            ACC.replace("0.01", "-0.01"),
            r"tolerated_loss: found -0\.01; allowed: greater than or eq",
        ),
        (ACC.replace("0.01", "1"), r"test\.acc\.tolerated_loss: found 1; allowed: below 1"),
        (
            ACC.replace("0.02", "0"),
            r"significance: found 0; allowed: greater than or equal to 0\.00",
        ),
        (
            ACC.replace("0.02", "0.06"),
            r"0\.06 of metrics\.test\.acc is 0\.06; allowed: together at",
        ),
        (
            ACC.replace("tolerated_loss: 0.01", "floor: 0"),
            r"metrics\.test\.acc\.tolerated_loss: missing",
        ),
        (
            ACC.replace("acc", "loss"),
            r"found 0\.02; allowed for test\.acc, test\.top3_acc, test\.b",
        ),
        (
            "metrics: {a: {direction: maximize}}",
            r"metrics\.a: requires nothing; allowed: tolerated_lo",
        ),
        ("limits: {model.size: {}}", r"limits\.model\.size: requires nothing; allowed: ratio or"),
        ("limits: {model.size: {ratio: 0}}", r"limits\.model\.size\.ratio: found 0; allowed: grea"),
        (
            "limits: {model.size: {max: 1}}",
            r"limits\.model\.size\.max: unknown key; allowed: ratio",
        ),
        ("per_class: {tolerated_loss: 0.1}", r"per_class\.significance: missing"),
        ("- 1", r"checks\.yaml: is not valid YAML"),
    ],
)
def test_a_mistake_is_named(make_checks, text, message):
    with pytest.raises(ParamsError, match=message):
        make_checks(text)


def test_the_shares_of_all_checks_are_added(make_checks):
    with pytest.raises(
        ParamsError,
        match=r"significance: 0\.02 \+ 0\.04 of metrics\.test\.acc, per_class is 0\.06; allowed",
    ):
        make_checks(ACC + "per_class: {tolerated_loss: 0.1, significance: 0.04}")


def test_a_missing_file_and_a_list_are_refused(tmp_path):
    with pytest.raises(ParamsError, match=r"none\.yaml: cannot be read \(No such file"):
        load_yaml(tmp_path / "none.yaml", Checks)
    (tmp_path / "list.yaml").write_text("[1]", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"list\.yaml: found list; allowed: a mapping"):
        load_yaml(tmp_path / "list.yaml", Checks)
