"""What people and machines read."""

import io
import json

import pytest
from rich.console import Console

from fieldguide.gate.outcome import CheckResult, Outcome, Status
from fieldguide.gate.output import as_dict, markdown, print_table
from fieldguide.pages.markdown import escape


def shown(outcome, width=80):
    stream = io.StringIO()
    print_table(outcome, Console(file=stream, width=width, highlight=False, markup=False))
    return stream.getvalue()


@pytest.fixture
def outcome():
    lost = CheckResult(
        "test.acc",
        Status.FAILED,
        "test.acc fell",
        reference=0.701,
        candidate=0.612,
        change=-0.089,
        low=-0.121,
        high=-0.058,
        p=0.00001,
    )
    size = CheckResult("model.size", Status.PASSED, "", 7361244.0, 7361242.0, -2.0)
    return Outcome("main", "workspace", [lost, size], photos=1000, notes=["a note"])


def test_the_table_fits_a_terminal(outcome):
    lines = shown(outcome, 80).splitlines()
    assert max(map(len, lines[:-3])) <= 80
    row = next(line for line in lines if line.startswith("test.acc "))
    assert row.split() == [
        *("test.acc", "0.701", "0.612", "−0.089", "−0.121", "to", "−0.058", "<0.0001", "failed")
    ]
    row = next(line for line in lines if line.startswith("model.size"))
    assert row.split() == ["model.size", "7,361,244", "7,361,242", "−2", "passed"]
    assert lines[-3:] == [
        "Regression in 1 of 2 checks: workspace against main, on the same 1,000 test photos",
        "  test.acc fell",
        "  a note",
    ]


def test_of_many_classes_those_nearest_to_failing_are_shown():
    classes = [
        CheckResult(f"recall.{k:03d}", Status.PASSED, reference=0.5, candidate=0.5, p=1 - k / 1000)
        for k in range(100)
    ]
    lost = CheckResult("recall.lost", Status.FAILED, "recall.lost fell", p=0.001)
    text = shown(Outcome("main", "mine", [*classes, lost]))
    assert "and 95 more classes, all further from failing" in text
    for name, there in (("095", True), ("099", True), ("lost", True), ("094", False)):
        assert (f"recall.{name}" in text) is there
    assert "and 95 more classes" in markdown(Outcome("main", "mine", [*classes, lost]))


def test_json_says_all(outcome):
    found = json.loads(json.dumps(as_dict(outcome), allow_nan=False))
    assert found["verdict"] == "regression"
    assert found["exit_status"] == 1
    assert found["checks"][0]["change"] == -0.089
    assert found["checks"][0]["status"] == "failed"


def test_markdown(outcome):
    lines = markdown(outcome).splitlines()
    assert lines[0] == (
        "### ❌ Regression in 1 of 2 checks: workspace against main, on the same 1,000 test photos"
    )
    assert lines[2:4] == ["- test.acc fell", "- a note"]
    assert r"| test.acc | 0.701 | 0.612 | −0.089 | −0.121 to −0.058 | \<0.0001 | failed |" in lines
    refused = markdown(Outcome("main", "mine", refused="the test sets differ"))
    assert refused == "### ⚠️ Not compared: mine against main\n\n- the test sets differ\n"


def test_names_of_strangers_stay_text():
    name = "recall.<img src=x>|*a*\x1b[2J [b](http://c) @all `d` www.e.org $f$"
    outcome = Outcome("main", "mine", [CheckResult(name, Status.FAILED, f"{name}\nfell")])
    assert "\x1b" not in shown(outcome) + markdown(outcome)
    assert "[b](http://c)" in shown(outcome, 200)  # Rich takes no markup from it
    text = markdown(outcome)
    assert f"- {escape(outcome.checks[0].reason)}\n" in text
    assert f"| {escape(name)} |" in text
    assert len(text.splitlines()) == 11
