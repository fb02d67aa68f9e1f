"""The page of a sweep: what it says, and that it works in a real browser without a network."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fieldguide.core.errors import SweepError
from fieldguide.sweeps.ranking import rank
from fieldguide.sweeps.space import EarlyTerminate, EndedRun, Run, Sweep
from fieldguide.sweeps.sweep_page import FEWEST, influences, read_parameters, write_page

SECTIONS = ("history", "parallel", "importance", "best", "savings")
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">$_$"
START = datetime(2026, 1, 1, tzinfo=UTC)
SPACE = {
    "model.filters": CategoricalDistribution(["[32, 64]", "[64, 64]"]),
    "model.conv_layers": IntDistribution(3, 5),
    "model.activation": CategoricalDistribution(["relu", "mish"]),
    "model.batch_norm": CategoricalDistribution([True, False]),
    "train.batch_size": CategoricalDistribution([32, 64, 128]),
    "train.learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
    "train.weight_decay": FloatDistribution(0, 0.1),
}


def new_sweep(space, metric="val/acc", seeds=1):
    return Sweep(
        path=Path("sweeps/b.yaml"),
        name="b",
        method="random",
        metric=metric,
        space=space,
        fixed={},
        lists=frozenset(),
        configurations=1000,
        early_terminate=EarlyTerminate(type="hyperband", min_iter=3),
        seeds=seeds,
        seed=0,
    )


def ended(number, score, values=None, *, index=0, stop_after=0, minute=None, **given):
    """Return a run, by default one of 20 epochs to the end of the training."""
    overrides = {**(values or {}), "train.stop_after": stop_after}
    run = Run(number, index, stop_after, given.get("name", f"b-{number:04d}_x"), overrides)
    when = START + timedelta(minutes=number if minute is None else minute)
    return EndedRun(run, score, stop_after or 20, given.get("seconds", 60.0), when)


def random_runs(count):
    """Draw configurations of SPACE; two thirds stop at the first rung."""
    rng = np.random.default_rng(0)
    for number in range(count):
        values = {
            "model.filters": [[32, 64], [64, 64]][rng.integers(2)],
            "model.conv_layers": int(rng.integers(3, 6)),
            "model.activation": str(rng.choice(["relu", "mish"])),
            "model.batch_norm": bool(rng.integers(2)),
            "train.batch_size": int(rng.choice([32, 64, 128])),
            "train.learning_rate": float(10 ** rng.uniform(-5, -2)),
            "train.weight_decay": float(rng.uniform(0, 0.1)),
        }
        score = 0.6 - 0.07 * (math.log10(values["train.learning_rate"]) + 3) ** 2
        score += 0.06 * values["model.batch_norm"]
        yield ended(number, score / 2, values, stop_after=3)
        if number % 3 == 0:
            yield ended(number, score, values, minute=number + 2)


@pytest.fixture
def write(tmp_path):
    """Writes a page and returns its path."""

    def make(runs, sweep):
        page = tmp_path / "plots" / "sweep.html"
        write_page(runs, sweep, page)
        return page

    return make


def columns(scores, **values):
    """Return the influences of parameters by label, from their values in each configuration."""
    space = {
        f"model.{name}": FloatDistribution(min(column), max(column))
        if isinstance(column[0], float)
        else CategoricalDistribution([0])
        for name, column in values.items()
    }
    keyed = {f"model.{name}": column for name, column in values.items()}
    runs = [
        ended(k, score, {key: column[k] for key, column in keyed.items()})
        for k, score in enumerate(scores)
    ]
    sweep = new_sweep(space)
    ranked = rank(runs, sweep)
    return {one.parameter.label: one for one in influences(read_parameters(ranked, sweep), ranked)}


def test_the_page_opens_with_every_section_and_can_be_used(write, visit):
    tab = visit(write(random_runs(30), new_sweep(SPACE)), "#parallel-chart .main-svg")
    for name in SECTIONS:
        assert tab.locator(f"section#{name} h2").is_visible(), name
    assert tab.locator("#history-chart .main-svg").first.is_visible()
    assert "30" in tab.locator(".facts").inner_text()
    assert tab.locator("section#best table tr").count() == 1 + 10
    assert tab.locator("section#importance strong").all_inner_texts()[0] == "learning_rate"
    # Plotly puts a notice here where it cannot draw the lines.
    assert "WebGL" not in tab.locator("#parallel-chart").inner_text()

    tab.locator("#parallel-chart").scroll_into_view_if_needed()
    before = dimensions(tab)
    assert [label for label, _ in before] == [
        *(key.split(".")[1] for key in SPACE),
        "val/acc",
    ]
    brush(tab, len(before) - 1, 0.05, 0.4)
    low, high = dimensions(tab)[-1][1]
    shown = tab.evaluate(
        "document.getElementById('parallel-chart').data[0].dimensions.at(-1).range"
    )
    # From the top: 5 % to 40 % of the axis.
    extent = shown[1] - shown[0]
    assert high == pytest.approx(shown[1] - 0.05 * extent, abs=0.03 * extent)
    assert low == pytest.approx(shown[1] - 0.40 * extent, abs=0.03 * extent)
    category = [label for label, _ in before].index("activation")
    brush(tab, category, 0.6, 1.0)
    assert dimensions(tab)[category][1] is not None

    title = tab.locator("#parallel-chart .axis-title").first
    box = title.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 200, y, steps=8)
    tab.mouse.up()
    after = [label for label, _ in dimensions(tab)]
    assert after.index(before[0][0]) in (1, 2)
    assert sorted(after) == sorted(label for label, _ in before)


def test_axes_of_the_parallel_coordinates(write):
    data = chart(write(random_runs(30), new_sweep(SPACE)), "parallel")[0]
    axes = {one["label"]: one for one in data["dimensions"]}
    assert axes["filters"]["ticktext"] == ["32, 64", "64, 64"]
    assert axes["batch_norm"]["ticktext"] == ["false", "true"]
    assert axes["batch_size"]["ticktext"] == ["32", "64", "128"]
    assert axes["batch_size"]["tickvals"] == axes["conv_layers"]["tickvals"] == [0, 1, 2]
    # A logarithmic axis has ticks at equal distances of the logarithm.
    rate = axes["learning_rate"]
    steps = np.diff(rate["tickvals"])
    assert steps == pytest.approx([steps[0]] * 8)
    assert [float(text) for text in rate["ticktext"]] == pytest.approx(
        [10**place for place in rate["tickvals"]], rel=0.01
    )
    assert min(rate["values"]) == pytest.approx(rate["tickvals"][0])
    assert axes["weight_decay"]["values"] == pytest.approx(
        [one.values["train.weight_decay"] for one in rank(random_runs(30), new_sweep(SPACE))]
    )


@pytest.mark.parametrize("metric", ["val/acc", "val/macro_f1", "val/loss"])
def test_the_best_lines_are_the_darkest_and_on_top(write, metric):
    sweep = new_sweep({"model.dropout": FloatDistribution(0, 1)}, metric)
    runs = [ended(k, k / 10, {"model.dropout": k / 10}) for k in range(1, 6)]
    line = chart(write(runs, sweep), "parallel")[0]["line"]
    assert line["colorscale"][-1][1] == "#08306b"
    best_first = line["color"]
    assert best_first == sorted(best_first, reverse=True)


def test_several_seeds_are_shown_with_their_spread(write):
    runs = [
        ended(number, number + index / 10, {"model.dropout": number / 10}, index=index)
        for number in range(1, 7)
        for index in range(3 if number < 6 else 1)
    ]
    sweep = new_sweep({"model.dropout": FloatDistribution(0, 1)}, "val/loss", seeds=3)
    page = write(runs, sweep)
    complete, incomplete, best = chart(page, "history")
    # Of 1.0, 1.1 and 1.2, and so on; the sixth lacks two seeds.
    assert complete["error_y"]["array"] == pytest.approx([0.1] * 5)
    assert "error_y" not in incomplete
    assert best["y"][-1] == pytest.approx(1.1 + 2.91999 * 0.1 / 3**0.5)
    last = rows(page, "best")[-1]
    assert [text in last for text in ("b-0006_", "incomplete", "6.0000")] == [True] * 3
    before = page.read_bytes()
    assert write(reversed(runs), sweep).read_bytes() == before


def test_mean_spread_and_bound_by_hand(write):
    accuracies = {1: (0.70, 0.71, 0.72), 2: (0.60, 0.75, 0.90)}
    runs = [
        ended(number, score, index=index)
        for number, scores in accuracies.items()
        for index, score in enumerate(scores)
    ]
    page = write(runs, new_sweep({}, seeds=3))
    # t(0.95, 2) = 2.91999: 0.71 - 2.91999 * 0.01 / sqrt(3) = 0.6931, 0.75 - 15 * ... = 0.4971.
    first, second = rows(page, "best")
    assert all(text in first for text in ("b-0001_", "71.00%", "1.00%", "69.31%"))
    assert all(text in second for text in ("b-0002_", "75.00%", "15.00%", "49.71%"))
    assert "71.00% ± 1.00%" in summary(page)


def test_savings_by_hand(write):
    runs = [
        ended(1, 0.1, stop_after=3, seconds=30.0),
        ended(2, 0.1, stop_after=3, seconds=30.0),
        ended(2, 0.2, stop_after=9, seconds=60.0),
        ended(3, 0.1, stop_after=3, seconds=30.0),
        ended(3, 0.3, stop_after=9, seconds=60.0),
        ended(3, 0.4, seconds=90.0),
        ended(3, 0.4, index=1, seconds=0.0),
    ]
    page = write(runs, new_sweep({}, seeds=2))
    # Trained: 3 + 9 + 2 × 20 epochs; without pruning: 3 configurations × 2 seeds × 20 epochs.
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert "52 epochs were trained, in 5.0 minutes" in text
    assert "about 120 epochs in all. Pruning saved 57% of them." in text
    names = ("paused after epoch 3", "paused after epoch 9", "trained to the end")
    numbers = ((1, 3, 0.5), (1, 9, 1.5), (1, 40, 3.0))
    for row, name, values in zip(rows(page, "savings"), names, numbers, strict=True):
        assert name in row
        assert all(f"</span>{value}</td>" in row.replace("\n", "") for value in values)


def test_what_decides_comes_first_and_shares_sum_to_one():
    rng = np.random.default_rng(0)
    decides, noise = rng.uniform(0, 1, 80).tolist(), rng.uniform(0, 1, 80).tolist()
    name, flag = rng.choice(["relu", "mish"], 80).tolist(), (rng.uniform(0, 1, 80) < 0.5).tolist()
    scores = [value + 0.5 * (text == "mish") for value, text in zip(decides, name, strict=True)]
    given = {"noise": noise, "decides": decides, "name": name, "flag": flag}
    found = columns(scores, **given)
    assert list(found)[:2] == ["decides", "name"]
    assert sum(one.importance for one in found.values()) == pytest.approx(1)
    assert found["noise"].importance < 0.05
    assert found["flag"].importance < 0.05
    again = columns(scores, **given)
    assert [one.importance for one in again.values()] == [one.importance for one in found.values()]


def test_correlations_by_hand():
    # Spearman's rho = 1 - 6 sum(d^2) / (n (n^2 - 1)), where no ranks are equal.
    found = columns(
        [0.2, 0.1, 0.3, 0.9, 0.4],
        a=[1e-5, 1e-4, 1e-3, 1e-2, 1e-1],  # ranks 1 2 3 4 5; scores' 2 1 3 5 4: d^2 = 4
        flag=[False, False, True, True, True],
        name=["x", "x", "y", "z", "z"],
    )
    assert found["a"].correlations == [("", pytest.approx(1 - 6 * 4 / (5 * 24)))]
    # Equal ranks: Pearson's of ranks. 1.5 1.5 4 4 4 (mean 3) with 2 1 3 5 4 (mean 3):
    # covariance 1.5 + 3 + 0 + 2 + 1 = 7.5, squares 2 * 2.25 + 3 * 1 = 7.5 and 10.
    by_ranks = 7.5 / (7.5 * 10) ** 0.5
    assert found["flag"].correlations == [("", pytest.approx(by_ranks))]
    levels = dict(found["name"].correlations)
    # y: 1 of 5, whose score is the median.
    assert levels == {
        "x": pytest.approx(-by_ranks),
        "y": pytest.approx(0),
        "z": pytest.approx(by_ranks),
    }


@pytest.mark.parametrize("count", range(2, FEWEST))
def test_too_few_configurations_to_tell(count):
    found = columns([0.1 * k for k in range(count)], a=[float(k) for k in range(count)])
    assert found["a"].importance is None
    assert found["a"].correlations == [("", None if count < 3 else pytest.approx(1))]


def test_equal_scores_tell_nothing():
    found = columns([0.5] * 20, a=[float(k) for k in range(20)])
    assert found["a"].importance is None
    assert found["a"].correlations == [("", None)]


def test_lists_null_and_names_that_two_sections_have():
    space = {
        "model.filters": CategoricalDistribution(["[32, 64]", "null"]),
        "data.seed": IntDistribution(0, 9),
        "train.seed": IntDistribution(0, 9),
    }
    runs = [
        ended(1, 0.5, {"model.filters": [32, 64], "data.seed": 1, "train.seed": 2}),
        ended(2, 0.4, {"model.filters": None, "data.seed": 1, "train.seed": 2}),
    ]
    filters, *seeds = read_parameters(rank(runs, new_sweep(space)), new_sweep(space))
    assert filters.values == ["32, 64", "null"]
    assert [one.label for one in seeds] == ["data.seed", "train.seed"]


def test_hostile_names_and_values_are_text_and_equal_scores_are_drawn(write, visit):
    keys = ("model.activation", "data.archive")
    runs = [
        ended(
            number,
            0.5,
            {
                keys[0]: HOSTILE if number % 2 else "<b>bold</b> & <a href='//x'>y</a>",
                keys[1]: f"</script><script>document.title='taken'//{number}",
            },
            name=f"b-{number:04d}_<script>alert(1)<",
        )
        for number in range(1, 8)
    ]
    page = write(runs, new_sweep(dict.fromkeys(keys, CategoricalDistribution(["x"]))))
    assert "Too few for importance, or all scores equal." in page.read_text(encoding="utf-8")
    tab = visit(page, "#parallel-chart .main-svg")
    assert tab.title() == "Sweep b"
    tab.locator("#history-chart .points path").first.hover(force=True)
    tab.wait_for_selector("#history-chart .hovertext")
    assert "</script>" in tab.locator("#history-chart .hovertext").text_content()
    assert tab.locator("img").count() == 0
    assert tab.locator("a[href]:not(.modebar-btn)").count() == 0
    assert HOSTILE in tab.locator("section#best").inner_text()
    assert "b-0007_<script>alert(1)<" in tab.locator("section#best").inner_text()
    # Seven archives, whose shortened names are equal, are not taken for one.
    assert len(set(chart(page, "parallel")[0]["dimensions"][1]["ticktext"])) == 7


def test_a_single_run_opens_and_the_policy_stops_foreign_content(write, browser):
    page = write([ended(1, 0.5, seconds=0.0)], new_sweep({}))
    text = page.read_text(encoding="utf-8")
    smuggled = "<script>document.title='taken'</script><img src='http://127.0.0.1:9/x.png'>"
    page.write_text(text.replace("</h1>", f"</h1>{smuggled}", 1), encoding="utf-8")
    tab = browser.new_page()
    messages = []
    tab.on("console", lambda message: messages.append(message.text))
    tab.goto(page.as_uri())
    tab.wait_for_selector("#history-chart .main-svg")
    assert tab.title() == "Sweep b"
    assert len(messages) == 2
    assert all("Content Security Policy" in text for text in messages)
    for name in SECTIONS:
        assert tab.locator(f"section#{name} h2").is_visible(), name
    assert "No parameter differs" in tab.locator("section#parallel").inner_text()
    assert "pruning has saved nothing" in tab.locator("section#savings").inner_text()
    tab.close()


def test_a_sweep_with_only_paused_configurations_has_a_page(write):
    page = write([ended(1, 0.5, stop_after=3)], new_sweep({}))
    assert "No configuration has been trained to the end yet." in summary(page)
    assert "the savings cannot be estimated" in page.read_text(encoding="utf-8")


def test_a_sweep_without_a_scored_run_is_refused(write, tmp_path):
    with pytest.raises(SweepError, match=r"^sweeps/b.yaml: no run has ended with a score; [^\n]*$"):
        write([], new_sweep(SPACE))
    assert not (tmp_path / "plots").exists()


def brush(tab, axis, start, end):
    """Drag along an axis of the parallel coordinates, between two fractions of its height."""
    box = tab.locator("#parallel-chart .axis-brush .background").nth(axis).bounding_box()
    x = box["x"] + box["width"] / 2
    tab.mouse.move(x, box["y"] + start * box["height"])
    tab.mouse.down()
    tab.mouse.move(x, box["y"] + (start + end) / 2 * box["height"], steps=4)
    tab.mouse.move(x, box["y"] + end * box["height"], steps=4)
    tab.mouse.up()


def dimensions(tab):
    """Return the label and the selected range of every axis, in the order that is shown."""
    return tab.evaluate(
        "document.getElementById('parallel-chart').data[0].dimensions"
        ".map(one => [one.label, one.constraintrange ?? null])"
    )


def rows(page, name):
    """Return the HTML of each row of a section's table, without the header."""
    text = page.read_text(encoding="utf-8")
    return text.split(f'<section id="{name}">')[1].split("</section>")[0].split("<tr>")[2:]


def summary(page):
    """Return the HTML above the first section."""
    return page.read_text(encoding="utf-8").split("<body>")[1].split("<section")[0]


def chart(page, name):
    """Return Plotly's data of a chart."""
    text = page.read_text(encoding="utf-8")
    return json.loads(text.split(f'data-chart="{name}-chart">')[1].split("</script>")[0])["data"]
