"""The tables, the results file and the chart, from rows written by hand."""

import math
from dataclasses import replace

import chart
import pytest
import results_file
import table
from results_file import Machine, Result
from side_by_side import OURS, Row

CPU = Machine("Abacus", 2, None, "2026-01-02", "abc1234", full=False, python="3.11", libraries={})
GPU = replace(CPU, gpu="Loom", cores=16)
MET = Row(
    "batches",
    "images/s",
    {OURS: [1000.0, 1234.0, 1400.0], "folder": [100.0, 100.0, 200.0]},
    "folder",
    5.0,
    at_least=True,
    limit="memory",
    left_out={"ffcv": "does not build"},
)
MISSED = Row("start", "s", {OURS: [0.42]}, None, 0.3, at_least=False, limit="imports take 0.2 s")
ON_GPU = Row(
    "epoch", "images/s", {OURS: [9.0], "bare": [10.0]}, "bare", 0.9, at_least=True, limit="memory"
)


def made(*rows, module="input_speed", machine=CPU):
    return [Result(module, row, machine) for row in rows]


def test_full_table_shows_every_contender_the_verdict_and_the_limit():
    text = table.full_table(made(MET, MISSED))
    # The ratios are 10, 12.34 and 7; their median is 10.
    assert (
        "| batches (images/s) | 1,230 (1,000–1,400) | folder 100 (100–200)<br>ffcv: does not build "
        "| 10 × | ≥ 5 × folder | met |"
    ) in text
    assert "| start (s) | 0.42 | – | 0.42 s | ≤ 0.3 s | **missed** |" in text
    assert "| start | imports take 0.2 s |" in text
    assert text.endswith("Measured on 2 cores of an Abacus, 2026-01-02, commit abc1234, quick.")


def test_short_table_has_the_rows_of_the_readme_as_times():
    _, batches, _, prepare, predict = table.IN_README
    slower = {OURS: [50.0], "folder": [100.0]}
    start = replace(MISSED, measured={OURS: [0.42], "lines": [0.4]}, against="lines", bound=1.3)
    results = made(
        replace(start, work=predict),
        MET,
        replace(MET, work=prepare, measured=slower, bound=0.9),
        replace(MET, work=batches),
    )
    lines = table.short_table(results).splitlines()
    names = [table.IN_README[work] for work in (batches, prepare, predict)]
    cells = (
        "1,230 images/s | folder 100 images/s | 10% of the time | at most 20%: met",
        "50 images/s | folder 100 images/s | 200% of the time | at most 111%: **missed**",
        "0.42 s | lines 0.4 s | 105% of the time | at most 130%: met",
    )
    assert lines[2:5] == [f"| {name} | {rest} |" for name, rest in zip(names, cells, strict=True)]
    assert lines[-1] == "Measured on 2 cores of an Abacus, 2026-01-02, commit abc1234, quick."


def test_every_row_of_the_readme_is_among_the_results():
    works = {result.row.work for result in results_file.load()}
    assert table.IN_README.keys() <= works


def test_rows_name_their_machine_if_there_are_several():
    text = table.full_table([*made(MISSED), *made(ON_GPU, machine=GPU)])
    assert "| start (s) [1] |" in text
    assert "| epoch (images/s) [2] | 9 | bare 10 | 0.9 × | ≥ 0.9 × bare | met |" in text
    assert text.endswith("[2] 16 cores of an Abacus, Loom, 2026-01-02, commit abc1234, quick")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(12345.6, "12,300"), (99.94, "99.9"), (0.01234, "0.0123"), (math.inf, "never")],
)
def test_numbers_have_three_digits(value, shown):
    assert table.number(value) == shown


def test_the_text_between_the_markers_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Top\n<!-- bench -->\nold\n<!-- /bench -->\nend\n", encoding="utf-8")
    assert table.insert(page, "new")
    assert page.read_text(encoding="utf-8") == (
        "# Top\n<!-- bench -->\nnew\n<!-- /bench -->\nend\n"
    )
    page.write_text("no markers\n", encoding="utf-8")
    assert not table.insert(page, "new")
    assert page.read_text(encoding="utf-8") == "no markers\n"
    page.write_text("<!-- bench -->\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="without <!-- /bench -->"):
        table.insert(page, "new")


def test_saved_results_are_loaded_unchanged(tmp_path):
    file = tmp_path / "results.json"
    never = replace(MISSED, measured={OURS: [math.inf, 0.5]})
    results_file.save([*made(MET, never), *made(ON_GPU, machine=GPU)], file)
    assert results_file.load(file) == [*made(MET, never), *made(ON_GPU, machine=GPU)]
    assert results_file.load(tmp_path / "none.json") == []


def test_merging_replaces_the_rows_of_the_modules_that_were_measured_again():
    order = ("input_speed", "cold_start")
    old = [*made(MISSED, module="cold_start"), *made(MET, replace(MET, work="gone"))]
    again = made(replace(MET, bound=6.0))
    assert results_file.merge(old, again, order) == [*again, *made(MISSED, module="cold_start")]


def test_margin_is_how_many_times_better_than_the_target():
    assert chart.margin(MET) == 2  # 10 times; the target is 5
    assert chart.margin(MISSED) == pytest.approx(0.3 / 0.42)
    assert chart.margin(replace(MISSED, measured={OURS: [math.inf]})) == 0


def test_chart_has_a_bar_for_each_measured_row():
    figure = chart.draw(made(MET, MISSED))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["batches", "start"]
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends == pytest.approx([2, 0.3 / 0.42])
    assert figure.get_suptitle() == "fieldguide side by side: 1 of 2 measured targets met"
