"""The command, its page in a real browser without a network, and its Markdown."""

import json
import re
from html import escape

import pytest
from here import fieldguide_here
from markdown_it import MarkdownIt
from PIL import Image
from results import BEE, FIGURES

SECTIONS = (
    *("metrics", "changes", "curves", "classes", "confusion", "calibration", "trust"),
    *("figures", "data", "params", "made"),
)
CHARTS = ("accuracy", "loss", "confusion", "calibration", "risk")


@pytest.fixture(scope="module")
def report(project, run_command):
    """What the command says, writes and shows: main's workspace against the first commit."""
    said = run_command(
        project,
        *("fieldguide", "report", "--against", "first", "--markdown", "plots/report.md"),
        *("--pictures", "pictures"),
    )
    return said, project / "plots" / "report.html", project / "plots" / "report.md"


def rows(page, name):
    """Cells of each row of a section's tables."""
    text = page.read_text(encoding="utf-8")
    part = text.split(f'<section id="{name}">')[1].split("</section>")[0]
    return [
        [cell.split(">", 1)[1].split("</td>")[0].strip() for cell in row.split("<td")[1:]]
        for row in part.replace("\n", "").replace("</tr>", "").split("<tr>")[1:]
    ]


def chart(page, name):
    """Plotly's data of a chart."""
    text = page.read_text(encoding="utf-8")
    return json.loads(text.split(f'data-chart="{name}-chart">')[1].split("</script>")[0])["data"]


def width_of(tab):
    """Pixels that the page needs."""
    return tab.evaluate("document.documentElement.scrollWidth")


@pytest.mark.slow
def test_the_page_opens_offline_and_shows_everything(report, visit):
    said, page, _ = report
    assert said.splitlines()[0].endswith(" second <i>run</i>")
    assert "4 figures" in said
    assert "unsafe-eval" not in page.read_text(encoding="utf-8").split("<title>")[0]
    tab = visit(page, "#calibration-chart .main-svg")
    assert width_of(tab) <= 1300
    tab.set_viewport_size({"width": 420, "height": 1000})
    for _ in range(100):  # charts follow a moment later
        if width_of(tab) <= 420:
            break
        tab.wait_for_timeout(50)
    assert width_of(tab) <= 420
    for name in SECTIONS:
        assert tab.locator(f"section#{name} h2").is_visible(), name
    for name in CHARTS:
        assert tab.locator(f"#{name}-chart .main-svg").first.is_visible(), name
    assert tab.title() == "Run report: workspace"
    assert tab.locator("#notices").count() == 0
    assert tab.evaluate("[...document.images].map(one => one.naturalWidth)") == [300] * 4
    # A class, a figure and a commit of strangers are text.
    assert tab.locator(":is(b, i):not(.bar *)").count() == 0
    for name in ("classes", "confusion", "data"):
        assert BEE in tab.locator(f"section#{name} td").all_inner_texts(), name
    assert "<b>own&" in tab.locator("#figures").inner_text()
    assert "second <i>run</i>" in tab.locator("p").first.inner_text()
    tab.emulate_media(media="print")
    assert not tab.locator("nav").is_visible()


@pytest.mark.slow
def test_numbers_by_hand(report):
    _, page, _ = report
    found = {row[0]: row[1:] for row in rows(page, "metrics") if row}
    # Wilson: (0.7 + z²/40 ± z √(0.7 · 0.3 / 20 + z²/1600)) / (1 + z²/20) with z = 1.96.
    better = '<span class="better">+10.0 points, better</span>'
    assert found["test accuracy"] == ["70.0%", "48.1% to 85.5%", "60.0%", better]
    assert found["kept epoch"] == ["2", "–", "2", "0"]
    assert found["parameters of the network"][0] == "1,234,567"
    weakest, ant, crab = [row for row in rows(page, "classes") if row]
    assert weakest[1:3] == ["8", "50.0%"]
    assert ant[0] == "ant"
    assert ant[1:3] == ["8", "75.0%"]
    assert crab[1:3] == ["4", "100.0%"]
    # From 51.0 % to 100 %, a mark at 100 % and one at 50 % before.
    assert re.findall(r":([\d.]+)%", crab[3]) == ["51.0", "49.0", "100.0", "50.0"]
    assert crab[4:6] == ["51.0% to 100.0%", "80.0%"]
    assert crab[6:] == ["37.6% to 96.4%", "0.889", "–", "50.0%"]
    assert "<mark>3</mark>" in rows(page, "params")[1]
    changed = [row for row in rows(page, "changes") if row]
    assert ["device", "cpu: B", "<mark>cpu: A</mark>"] in changed
    left_out = [row for row in rows(page, "data") if row and row[0] == "unreadable"]
    assert left_out == [["unreadable", "2"]]
    # train, val and test; groups; near-copies; all
    (counted,) = [row for row in rows(page, "data") if row and row[0] == "ant"]
    assert counted[:6] == ["ant", "10", "5", "8", "5 / 2 / 4", "2 / 0 / 0"]
    assert counted[6].endswith(">23")  # beside its bar
    assert ["training", "1.5 minutes", "1.5 minutes"] in rows(page, "made")
    assert ["cuda", "–"] in rows(page, "made")
    assert [line["name"] for line in chart(page, "accuracy")][:2] == ["train", "val"]
    assert chart(page, "accuracy")[2]["y"] == [0.4, 0.7]
    (matrix,) = chart(page, "confusion")
    assert matrix["customdata"] == [[4, 3, 1], [2, 6, 0], [0, 0, 4]]
    # 9 of 90 %, 6 right; 11 of 70 %, 8 right.
    assert chart(page, "calibration")[1]["y"] == pytest.approx([8 / 11, 6 / 9])
    assert chart(page, "risk")[0]["y"] == pytest.approx([1 / 3, 0.3])
    assert ["negative log-likelihood (NLL)", "0.900", "0.700"] in rows(page, "trust")
    assert found["test photos that are not unsure"][0] == "45.0%"


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(report, project):
    _, page, markdown = report
    before = page.read_bytes(), markdown.read_text()
    arguments = ("--against", "first", "--markdown", "-")
    done = fieldguide_here("report", *arguments, cwd=project)
    assert (page.read_bytes(), done.stdout) == before


@pytest.mark.slow
def test_markdown(report):
    _, _, markdown = report
    text = markdown.read_text(encoding="utf-8")
    assert "| test accuracy | 70.0% | 48.1% to 85.5% |" in text
    assert "| +10.0 points, better |" in text
    assert "45.0% of photos can be taken as they come: 66.7% of them are right" in text
    assert "Calibration changed the NLL from 0.900 to 0.700 and the ECE from 0.200 to 0.100" in text
    assert "  line [40.0, 70.0, 60.0]\n  line [40.0, 70.0]\n" in text
    assert "| train.epochs | 2 | 3 |" in text
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert escape(BEE, quote=False).replace("@", "@\u200b") in html
    assert not re.search(r"<(script|b|i)\b", html)


@pytest.mark.slow
def test_pictures_are_the_figures(report, project):
    assert {path.stem for path in (project / "pictures").iterdir()} == set(FIGURES)
    with Image.open(project / "pictures" / "mistakes.png") as picture:
        assert picture.size == (300, 200)


@pytest.mark.slow
def test_an_unknown_revision_is_told_and_nothing_written(project):
    arguments = ("--rev", "v9", "--output", "plots/other.html")
    done = fieldguide_here("report", *arguments, cwd=project)
    assert done.returncode == 1
    assert done.stderr.startswith("fieldguide: v9: no such stage, version, Git revision")
    assert not (project / "plots" / "other.html").exists()
