"""The report: what it says, and that it works in a real browser without a network."""

import json

import pytest
from synthetic import START, Experiment, random_experiments, write_experiments

from fieldguide.core.errors import SweepError
from fieldguide.sweeps.sweep_report import write_report

SECTIONS = ("history", "parallel", "importance", "marginals", "best", "curves", "cost")
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">$_$"


def write(root, sweep="space", metric="val/acc", goal="maximize"):
    """Write a report and return the page."""
    page = root / "plots" / "sweep.html"
    write_report(root, sweep, metric=metric, goal=goal, page=page)
    return page


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A report of 30 trials of ten parameters."""
    root = tmp_path_factory.mktemp("full")
    write_experiments(root, random_experiments(30))
    return write(root)


@pytest.fixture
def report(repository):
    """Writes a report of experiments and returns the page."""

    def make(experiments, sweep="b", **settings):
        return write(repository(experiments), sweep, **settings)

    return make


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
    """Label and chosen range of every axis, in the order that is shown."""
    return tab.evaluate(
        "document.getElementById('parallel-chart').data[0].dimensions"
        ".map(one => [one.label, one.constraintrange ?? null])"
    )


def test_the_page_opens_with_every_section_and_can_be_used(full, visit):
    tab = visit(full, "#loss-chart .main-svg")
    for name in SECTIONS:
        assert tab.locator(f"section#{name} h2").is_visible(), name
    for name in ("history", "parallel", "marginal-1", "marginal-10", "accuracy", "loss"):
        assert tab.locator(f"#{name}-chart .main-svg").first.is_visible(), name
    assert "30" in tab.locator(".facts").inner_text()
    assert tab.locator("section#best table tr").count() == 1 + 10
    assert tab.locator("section#importance strong").count() == 10
    # Plotly puts a notice here where it cannot draw the lines.
    assert "WebGL" not in tab.locator("#parallel-chart").inner_text()

    tab.locator("#parallel-chart").scroll_into_view_if_needed()
    before = dimensions(tab)
    assert [label for label, _ in before][-1] == "val/acc"
    assert all(chosen is None for _, chosen in before)
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
    tab.mouse.move(x + 140, y, steps=8)
    tab.mouse.up()
    after = [label for label, _ in dimensions(tab)]
    assert after != [label for label, _ in before]
    assert after.index(before[0][0]) in (1, 2)
    assert sorted(after) == sorted(label for label, _ in before)


def test_several_seeds_are_reported_with_their_spread(report):
    experiments = [
        Experiment(
            f"b-{number:04d}_x_s{seed}",
            params={"train.seed": seed, "model.dropout": number / 10},
            best={"val_loss": number + seed / 10},
            curves={"val/loss": [9.0, number + seed / 10], "train/loss": [9.0, 1.0]},
        )
        for number in range(1, 7)
        for seed in range(3 if number < 6 else 1)
    ]
    page = report(experiments, metric="val/loss", goal="minimize")
    complete, incomplete, best = chart(page, "history")
    # Of 1.0, 1.1 and 1.2, and so on; the sixth lacks two seeds.
    assert complete["error_y"]["array"] == pytest.approx([0.1] * 5)
    assert "error_y" not in incomplete
    assert best["y"][-1] == pytest.approx(1.1 + 2.91999 * 0.1 / 3**0.5)
    last = rows(page, "best")[-1]
    assert [text in last for text in ("b-0006_", "incomplete", "0.6")] == [True] * 3
    # 15 trainings of the best five, each with two curves; one of each five is in the legend.
    assert len(chart(page, "loss")) == 30
    assert sum(curve["showlegend"] for curve in chart(page, "loss")) == 5
    before = page.read_bytes()
    write(page.parents[1], "b", metric="val/loss", goal="minimize")
    assert page.read_bytes() == before


def test_mean_spread_and_bound_by_hand(report):
    accuracies = {1: (0.70, 0.71, 0.72), 2: (0.60, 0.75, 0.90)}
    page = report(
        [
            Experiment(
                f"b-{number:04d}_x_s{seed}",
                params={"train.seed": seed, "model.dropout": number / 10},
                best={"val_acc": score},
                created=START + 60 * number + seed,
            )
            for number, scores in accuracies.items()
            for seed, score in enumerate(scores)
        ],
    )
    # t(0.95, 2) = 2.91999: 0.71 - 2.91999 * 0.01 / sqrt(3) = 0.6931, 0.75 - 15 * ... = 0.4971.
    first, second = rows(page, "best")
    assert all(text in first for text in ("b-0001_", "71.00%", "1.00%", "69.31%"))
    assert all(text in second for text in ("b-0002_", "75.00%", "15.00%", "49.71%"))
    assert "71.00% ± 1.00%" in summary(page)


def test_cost_by_hand(report):
    page = report(
        [
            Experiment("b-0001_x", best={"val_acc": 0.5}, seconds=90.0),
            Experiment("b-0002_x", best={"val_acc": 0.4}, seconds=30.0, pruned=True),
            Experiment("b-0003_x", best={"val_acc": 0.3}, seconds=60.0),
            Experiment("b-0004_x", best={"val_acc": 0.2}, seconds=None),
        ],
    )
    assert "<dt>minutes of training</dt><dd>3.0</dd>" in summary(page)
    assert "<dt>pruned</dt><dd>25%</dd>" in summary(page)
    text = page.read_text(encoding="utf-8")
    assert "1 of 4 trials pruned (25%); 1 has no recorded time." in text


def test_hostile_names_and_values_are_text_and_equal_scores_are_drawn(report, visit):
    experiments = [
        Experiment(
            f"b-{number:04d}_<script>alert(1)<",
            params={
                "model.activation": HOSTILE if number % 2 else "<b>bold</b> & <a href='//x'>y</a>",
                "data.archive": f"</script><script>document.title='taken'//{number}",
            },
            best={"val_acc": 0.5},
            curves={"val/acc": [0.1, 0.2]},
            created=START - number,
        )
        for number in range(1, 8)
    ]
    page = report(experiments)
    assert "Too few for importance, or all scores equal." in page.read_text(encoding="utf-8")
    tab = visit(page, "#accuracy-chart .main-svg")
    assert tab.title() == "Sweep b"
    assert tab.locator("img").count() == 0
    assert tab.locator("a[href]:not(.modebar-btn)").count() == 0
    assert HOSTILE in tab.locator("section#best").inner_text()
    assert "b-0007_<script>alert(1)<" in tab.locator("section#best").inner_text()
    # Seven archives, whose shortened names are equal, and two activations.
    assert [len(set(chart(page, f"marginal-{k}")[0]["x"])) for k in (1, 2)] == [7, 2]
    assert "<b>bold</b>" in tab.locator("#marginals").inner_text().replace("\xa0", " ")


def test_a_bare_trial_opens_and_the_policy_stops_foreign_content(report, browser):
    page = report([Experiment("b-0001_x", best={"val_acc": 0.5}, seconds=None)])
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
    assert "no recorded curves" in tab.locator("section#curves").inner_text()
    tab.close()


def test_a_single_pruned_trial_is_a_report_too(report):
    page = report([Experiment("b-0001_x", best={"val_acc": 0.5}, pruned=True)])
    assert "1 of 1 trials pruned (100%)." in page.read_text(encoding="utf-8")


def test_no_finished_trial_is_told(repository):
    root = repository([Experiment("b-0001_x", best={"val_acc": 0.5}), Experiment("c-0001_x")])
    with pytest.raises(
        SweepError, match=r"'a' has no finished trial in .*; sweeps that have one: b, c"
    ):
        write(root, "a")
    with pytest.raises(SweepError, match=r"'c': none of its 1 trials has a finite best val/acc"):
        write(root, "c")
    with pytest.raises(SweepError, match=r"'b': none of its 1 trials has a finite best val/loss"):
        write(root, "b", metric="val/loss")
    with pytest.raises(SweepError, match="no sweep has one"):
        write(repository([], folder="empty"), "a")
    assert not (root / "plots").exists()


def rows(page, name):
    """HTML of each row of a section's table, without the header."""
    text = page.read_text(encoding="utf-8")
    return text.split(f'<section id="{name}">')[1].split("</section>")[0].split("<tr>")[2:]


def summary(page):
    """HTML above the first section."""
    return page.read_text(encoding="utf-8").split("<body>")[1].split("<section")[0]


def chart(page, name):
    """Plotly's data of a chart."""
    text = page.read_text(encoding="utf-8")
    return json.loads(text.split(f'data-chart="{name}-chart">')[1].split("</script>")[0])["data"]
