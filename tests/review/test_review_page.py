"""The page in a real browser, with the command in a process of its own that is killed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect
from reviewed import TABLE, rows_of_table, run_prepare, write_audit, write_params

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
KEYS = {"1": "ant", "2": "bee", "3": "crab", "0": ""}


class Server:
    """`fieldguide review` in the working folder."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "fieldguide.cli", "review", "--port", "0", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.printed, self.url = "", None
        while self.url is None:
            line = self.process.stdout.readline()
            assert line, self.printed
            self.printed += line
            found = re.search(r"Serving (http://\S+)", line)
            self.url = found and found[1]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture
def serve(folder):
    with contextlib.ExitStack() as stack:

        def go(*arguments):
            server = Server("--reviewer", "Ann", *arguments)
            stack.callback(server.kill)
            return server

        yield go


@pytest.fixture
def visit(browser):
    """Opens the page of a server; checks its requests and messages when the test ends."""
    contexts, problems, requests = [], [], []

    def go(server, path="/", expected=""):
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(30_000)

        def note(message):
            if message.type in ("error", "warning") and not (expected and expected in message.text):
                problems.append(message.text)

        tab.on("console", note)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda request: requests.append((server.url, request.url)))
        tab.goto(server.url + path)
        tab.wait_for_selector("#classes button")
        return tab

    yield go
    for context in contexts:
        context.close()
    assert problems == []
    assert all(found.startswith((url, f"blob:{url}")) for url, found in requests), requests


def ready(tab, name):
    """Wait until a photo is the current one and visible."""
    expect(tab.locator("#file")).to_have_text(name)
    tab.wait_for_selector(".cell.ready[aria-current=true]")


def press(tab, key, then):
    tab.keyboard.press(key)
    ready(tab, then)


def decisions():
    return {name: row["label"] for name, row in rows_of_table().items() if row["reviewed_at"]}


def test_thirty_photos_by_keys_one_undone_and_the_server_killed(serve, visit):
    server = serve()
    assert "made from the class folders" in server.printed
    assert "git add params.yaml data/labels/labels.csv" in server.printed
    write_params(labels=str(TABLE))
    before = run_prepare()
    lines = TABLE.read_text().splitlines()
    names = [f"train/{label}/{k:02d}.png" for label in ("ant", "bee", "crab") for k in range(20)]
    tab = visit(server)
    ready(tab, names[0])
    pressed = {}
    for k in range(30):
        key = "1203"[k % 4]
        press(tab, key, names[k + 1])
        pressed[names[k]] = KEYS[key]
        assert decisions() == pressed  # on disk before the page moves on
    expect(tab.locator("#progress")).to_have_text("30 of 60 reviewed")
    press(tab, "Backspace", names[29])
    del pressed[names[29]]
    tab.context.close()
    server.kill()
    assert decisions() == pressed
    assert [p.name for p in TABLE.parent.iterdir()] == [TABLE.name]

    tab = visit(serve())  # goes on where it was
    ready(tab, names[29])
    expect(tab.locator("#progress")).to_have_text("29 of 60 reviewed")
    changed = [a for a, b in zip(lines, TABLE.read_text().splitlines(), strict=True) if a != b]
    assert [line.split(",")[0] for line in changed] == list(pressed)

    after = run_prepare()
    unusable = {name for name, label in pressed.items() if label == ""}
    assert after.keys() == before.keys() - unusable
    for name, label in pressed.items():
        before[name] = (before[name][0], label)
    assert after == {name: found for name, found in before.items() if name not in unusable}


def test_keep_skip_not_usable_and_reload(serve, visit):
    tab = visit(serve())
    ready(tab, "train/ant/00.png")
    press(tab, "Enter", "train/ant/01.png")
    press(tab, " ", "train/ant/02.png")
    press(tab, "0", "train/ant/03.png")
    tab.reload()
    ready(tab, "train/ant/03.png")  # the skipped one comes last
    assert decisions() == {"train/ant/00.png": "ant", "train/ant/02.png": ""}
    press(tab, "Backspace", "train/ant/02.png")
    press(tab, "Backspace", "train/ant/01.png")
    press(tab, "Backspace", "train/ant/00.png")
    tab.keyboard.press("Backspace")
    expect(tab.locator("#error")).to_have_text("nothing to undo since the server started")
    assert decisions() == {}
    tab.locator("#classes button", has_text="crab").click()
    ready(tab, "train/ant/01.png")
    press(tab, "Enter", "train/ant/02.png")  # not the button that was clicked
    assert decisions() == {"train/ant/00.png": "crab", "train/ant/01.png": "ant"}


def test_grid_by_class(serve, visit):
    tab = visit(serve(), "/#grid")
    expect(tab.locator(".cell.ready")).to_have_count(24)
    tab.select_option("#shown", label="bee (20)")
    expect(tab.locator(".cell.ready")).to_have_count(20)
    tab.keyboard.press("ArrowRight")
    ready(tab, "train/bee/01.png")
    press(tab, "3", "train/bee/02.png")
    expect(tab.locator(".cell.ready")).to_have_count(19)
    tab.click("#all")
    expect(tab.locator("#progress")).to_have_text("20 of 60 reviewed")
    expected = {f"train/bee/{k:02d}.png": "bee" for k in range(20)}
    assert decisions() == expected | {"train/bee/01.png": "crab"}
    expect(tab.locator(".cell.ready")).to_have_count(24)  # other classes
    tab.keyboard.press("Backspace")  # all of them, but not the one before
    expect(tab.locator("#progress")).to_have_text("1 of 60 reviewed")
    assert decisions() == {"train/bee/01.png": "crab"}


def test_in_the_grid_a_key_decides_only_what_is_on_the_screen(serve, visit):
    tab = visit(serve(), "/#grid")
    tab.set_viewport_size({"width": 1280, "height": 600})
    expect(tab.locator(".cell.ready")).to_have_count(24)
    for _ in range(4):
        tab.keyboard.press("ArrowDown")
    name = tab.locator("#file").inner_text()
    assert name != "train/ant/00.png"
    expect(tab.locator(".cell[aria-current=true]")).to_be_in_viewport(ratio=1)
    tab.evaluate("scrollTo(0, 0)")
    expect(tab.locator(".cell[aria-current=true]")).not_to_be_in_viewport()
    tab.keyboard.press("2")  # only scrolls
    expect(tab.locator(".cell[aria-current=true]")).to_be_in_viewport(ratio=1)
    assert decisions() == {}
    tab.keyboard.press("2")
    expect(tab.locator("#progress")).to_have_text("1 of 60 reviewed")
    assert decisions() == {name: "bee"}


@pytest.mark.parametrize("size", [(1280, 500), (360, 740)])
def test_photo_and_buttons_are_on_the_screen_together(size, serve, visit):
    serve()  # makes the table
    rows = TABLE.read_text().splitlines()  # many classes, so that their list is long
    rows = [row.replace(",crab,train", f",crab {k},train") for k, row in enumerate(rows)]
    rows = [row.replace(",crab,", ",ant,") for row in rows]
    TABLE.write_text("".join(f"{row}\n" for row in rows))
    server = serve()
    for path in ("/", "/#grid"):
        tab = visit(server, path)
        tab.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
        tab.wait_for_selector(".cell.ready[aria-current=true]")
        if path == "/#grid":
            expect(tab.locator(".cell.ready")).to_have_count(24)
            for _ in range(23):
                tab.keyboard.press("ArrowRight")
        for place in (".cell[aria-current=true]", "#keep", "#unusable", "#skip", "#undo"):
            expect(tab.locator(place)).to_be_in_viewport(ratio=1)
        tab.keyboard.press("Backspace")  # an error, which is seen too
        expect(tab.locator("#error")).to_have_text("nothing to undo since the server started")
        expect(tab.locator("#error")).to_be_in_viewport(ratio=1)
        assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_find_a_class(serve, visit):
    for old in Path("data/photos").glob("*/crab"):
        old.rename(old.with_name("bee fly"))
    tab = visit(serve())
    ready(tab, "train/ant/00.png")
    tab.keyboard.type("/be")
    tab.keyboard.press("Enter")
    expect(tab.locator("#error")).to_have_text(
        '2 classes have "be" in their names; type the whole name'
    )
    tab.keyboard.type("e")
    press(tab, "Enter", "train/ant/01.png")  # the exact name
    tab.keyboard.type("/fly")
    expect(tab.locator("#classes button:visible")).to_have_count(1)
    tab.keyboard.press("Tab")
    press(tab, "Enter", "train/ant/02.png")
    expect(tab.locator("#classes button:visible")).to_have_count(3)
    assert decisions() == {"train/ant/00.png": "bee", "train/ant/01.png": "bee fly"}


def test_a_table_of_ones_own_without_splits_is_told_that_splits_are_drawn(serve):
    assert "draws it" not in serve().printed
    rows = [line.split(",")[:2] for line in TABLE.read_text().splitlines()]
    TABLE.write_text("".join(f"{file},{label}\n" for file, label in rows))
    write_params(labels=str(TABLE))
    printed = serve().printed
    assert "each row got the columns reviewed_by and reviewed_at; commit that first" in printed
    assert "no photo has the split val, so `prepare` draws it from each class" in printed


def test_two_reviewers_on_one_table(serve, visit):
    ann, bob = visit(serve()), visit(serve("--reviewer", "Bob"))
    for tab in (ann, bob):
        ready(tab, "train/ant/00.png")
    press(ann, "2", "train/ant/01.png")
    press(bob, "3", "train/ant/01.png")
    expect(bob.locator("#error")).to_have_text(
        "train/ant/00.png: the table now says: bee, decided by Ann; that stays"
    )
    press(bob, "3", "train/ant/02.png")
    rows = rows_of_table()
    found = [
        (rows[f"train/ant/0{k}.png"]["label"], rows[f"train/ant/0{k}.png"]["reviewed_by"])
        for k in (0, 1)
    ]
    assert found == [("bee", "Ann"), ("crab", "Bob")]


def test_a_photo_that_is_gone_and_a_table_that_cannot_be_written(serve, visit):
    server = serve()
    Path("data/photos/train/ant/00.png").unlink()
    tab = visit(server, expected="Failed to load resource")
    ready(tab, "train/ant/00.png")
    gone = "This photo cannot be shown: cannot be read (No such file or directory)"
    expect(tab.locator(".gone")).to_have_text(gone)
    press(tab, "0", "train/ant/01.png")
    TABLE.with_name(".labels.csv.partial").symlink_to("/dev/full")
    tab.keyboard.press("2")
    expect(tab.locator("#error")).to_contain_text("cannot be written (No space left on device)")
    ready(tab, "train/ant/01.png")  # it does not move on
    assert decisions() == {"train/ant/00.png": ""}
    press(tab, "2", "train/ant/02.png")
    assert tab.locator("#error").is_hidden()
    server.kill()
    tab.keyboard.press("2")
    expect(tab.locator("#error")).to_contain_text("it is not known whether it wrote the last")


def test_test_photos_have_no_opinion_beside_them(serve, visit):
    tab = visit(serve("--split", "test"))
    expect(tab.locator("#title")).to_have_text("Test photos, in random order")
    expect(tab.locator("#why")).to_contain_text("without the classifier's opinion")
    tab.wait_for_selector(".cell.ready")
    assert tab.locator("#file").inner_text().startswith("val/")
    assert tab.locator("#reasons li").count() == 0
    assert "Suggested" not in tab.locator("#now").inner_text()


def test_names_are_text(serve, visit):
    for old in Path("data/photos").glob("*/crab"):
        old.rename(old.with_name(HOSTILE.replace("/", "")))
    name = f"train/{HOSTILE}/00.png"
    write_audit([(name, "train", HOSTILE, "ant")])
    tab = visit(serve())
    ready(tab, name)
    assert HOSTILE in tab.locator("#now").inner_text()
    tab.keyboard.press("1")  # "<" is the first in order
    expect(tab.locator("#progress")).to_have_text("1 of 1 reviewed")
    expect(tab.locator("#photos")).to_have_text("Nothing is left to review here.")
    assert decisions() == {name: HOSTILE}
    assert tab.title() == "fieldguide review"
    assert tab.locator("main img[src=x]").count() == 0
