"""The page, in a real browser that is offline."""

import base64
import io
import shutil
import threading

import pytest
from PIL import Image
from playwright.sync_api import expect
from uploaded import picture, write_results

from fieldguide.inference.classifier import Classifier
from fieldguide.inference.torch_classifier import TorchClassifier

pytestmark = pytest.mark.slow

HOSTILE = ["<img src=x onerror=\"document.title='taken'\">", "a  b & <b>c</b>", "x" * 120]
# The browser also logs every refused photo to its console.
REFUSED = "Failed to load resource: the server responded with a status of 422"
DROP = """([base64, name]) => {
  const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  const transfer = new DataTransfer();
  if (name) transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  const target = document.getElementById("drop");
  for (const kind of ["dragenter", "dragover", "drop"]) {
    target.dispatchEvent(
      new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
  }
}"""
PASTE = """([base64, name]) => {
  const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/png" }));
  document.dispatchEvent(
    new ClipboardEvent("paste", { bubbles: true, clipboardData: transfer }));
}"""


class Explained(TorchClassifier):
    """Draws explanations whose width tells their class: 100, 200, ... pixels."""

    def explain(self, photo, label=None, **settings):
        width = 100 * (1 + self.classes.index(label or self.predict(photo).label))
        buffer = io.BytesIO()
        Image.new("RGB", (width, 50), "orange").save(buffer, "PNG")
        return buffer.getvalue()


class Held(Explained):
    """Answers the first photo only after `release` is set."""

    def __init__(self, folder):
        super().__init__(folder, "cpu")
        self.asked, self.release = threading.Event(), threading.Event()

    def predict(self, photo, **settings):
        if not self.asked.is_set():
            self.asked.set()
            assert self.release.wait(30)
        return super().predict(photo, **settings)


class Mute(Classifier):
    """Gives the answers of another classifier, but no explanations, like an exported one."""

    def __init__(self, other):
        super().__init__(other.classes, image_size=other.image_size, resize=other.resize)
        self.probabilities = other.probabilities

    def probabilities(self, pixels):
        raise NotImplementedError


@pytest.fixture(scope="session")
def classifier(classifier_folder):
    return Explained(classifier_folder, "cpu")


@pytest.fixture
def visit(browser, start):
    """Opens the page of a classifier; checks its requests and messages when the test ends."""
    requests, problems, opened = [], [], []

    def go(classifier, width=1100, scheme="light", **settings):
        url = f"http://127.0.0.1:{start(classifier, **settings)}/"
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        opened.append(context)
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        tab.on("request", lambda request: requests.append((url, request.url)))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on(
            "console",
            lambda message: (
                problems.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        tab.goto(url)
        tab.wait_for_selector("#facts tr")
        return tab

    yield go
    for context in opened:
        context.close()
    assert [text for text in problems if not text.startswith(REFUSED)] == []
    assert all(found.startswith((url, f"blob:{url}")) for url, found in requests), requests


def upload(tab, name, data):
    tab.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": data})


def rows(classifier, photo, count=5):
    """Names and percentages that the list should show for a photo."""
    found = classifier.predict(photo).top(count)
    return [(name, f"{100 * p:.1f}%") for name, p in found.items()]


def shown(tab):
    """Names and percentages that the list shows."""
    names = tab.locator("#classes .name").all_inner_texts()
    return list(zip(names, tab.locator("#classes .share").all_inner_texts(), strict=True))


def wait_for(tab, expected):
    """Wait until the page shows the expected answer."""
    name, share = expected[0]
    expect(tab.locator("#verdict")).to_have_text(f"{name}, {share}", timeout=30_000)
    assert shown(tab) == expected


def test_a_chosen_photo_has_its_answer_and_explanation(visit, classifier):
    photo = picture("JPEG", (300, 200))
    tab = visit(classifier)
    expect(tab.locator("#verdict")).to_have_text("No photo yet")
    assert tab.locator("#explanation").is_hidden()
    upload(tab, "photo.jpg", photo)
    expected = rows(classifier, photo)
    wait_for(tab, expected)
    assert tab.locator("#preview").evaluate("image => image.naturalWidth") == 300
    track, fill = (tab.locator(one).first.bounding_box()["width"] for one in (".track", ".fill"))
    assert fill / track == pytest.approx(float(expected[0][1][:-1]) / 100, abs=0.01)
    # It explains the most probable class first, then any class that is chosen.
    expect(tab.locator("#caption")).to_contain_text(expected[0][0])
    for name in (expected[0][0], "ant", "crab"):
        tab.select_option("#class", name)
        expect(tab.locator("#caption")).to_contain_text(f"speaks for {name}.")
        assert name in tab.get_attribute("#picture", "alt")
        tab.wait_for_function(
            "width => document.getElementById('picture').naturalWidth === width",
            arg=100 * (1 + classifier.classes.index(name)),
        )


def test_a_dropped_and_a_pasted_photo(visit, classifier):
    tab = visit(classifier)
    for seed, script in enumerate((DROP, PASTE)):
        photo = picture("PNG", seed=seed)
        tab.evaluate(script, [base64.b64encode(photo).decode(), "photo.png"])
        wait_for(tab, rows(classifier, photo))
    tab.evaluate(DROP, ["", ""])  # a selected text, for example
    expect(tab.locator("#error")).to_contain_text("That is not a file")


def test_a_bad_file_shows_an_error_and_a_good_one_works_afterwards(visit, classifier):
    photo = picture("JPEG")
    tab = visit(classifier)
    error = tab.locator("#error")
    upload(tab, "<b>notes</b>.jpg", b"This is a text.")
    expect(error).to_have_text("<b>notes</b>.jpg: unreadable (cannot identify image file)")
    assert tab.get_attribute("#error", "role") == "alert"
    assert shown(tab) == []
    upload(tab, "photo.jpg", photo)
    wait_for(tab, rows(classifier, photo))
    assert error.is_hidden()
    upload(tab, "large.jpg", photo.ljust(20_000_001, b"\0"))
    expect(error).to_have_text("large.jpg: larger than 20 MB")  # it is not even sent
    assert tab.locator("#explanation").is_hidden()
    upload(tab, "photo.jpg", photo)
    wait_for(tab, rows(classifier, photo))


def test_the_answer_of_an_earlier_photo_is_ignored(visit, classifier_folder):
    held = Held(classifier_folder)
    first, second = picture("PNG", seed=1), picture("PNG", seed=2)
    tab = visit(held)
    upload(tab, "first.png", first)
    while not held.asked.wait(0.01):
        tab.wait_for_timeout(10)
    expect(tab.locator("#verdict")).to_have_text("Classifying…")
    upload(tab, "second.png", second)
    expected = rows(held, second)
    wait_for(tab, expected)
    held.release.set()
    tab.wait_for_timeout(500)
    assert shown(tab) == expected != rows(held, first)


def test_model_card(visit, classifier, classifier_folder, tmp_path):
    text = visit(classifier).locator("#card").inner_text()
    known = ("no test results here", "never said", "62.5%", "3: ant, bee, crab", "16 × 16")
    for fact in (*known, "random weights"):
        assert fact in text, fact
    model = shutil.copytree(classifier_folder, tmp_path / "models" / "classifier")
    write_results(model, hits=701, photos=1000)
    text = visit(classifier, model=model).locator("#card").inner_text()
    assert "70.1% of 1,000 photos (95% interval 67.2 to 72.9%)" in text
    assert "70.0% of photos can be taken as they come: 95.7% of them are right" in text


def test_an_answer_that_is_not_sure_enough_is_unsure(visit, classifier_folder):
    photo = picture("PNG")
    for smallest, verdict in ((0.0, ""), (0.9999, "Unsure; best guess: ")):
        classifier = Mute(TorchClassifier(classifier_folder, "cpu"))
        classifier.min_confidence = smallest
        tab = visit(classifier)
        assert f"below {100 * smallest:.1f}%" in tab.locator("#card").inner_text()
        upload(tab, "photo.png", photo)
        best = classifier.predict(photo)
        expected = f"{verdict}{best.label}, {100 * best.probability:.1f}%"
        expect(tab.locator("#verdict")).to_have_text(expected)


def test_without_explanations_their_section_is_hidden(visit, classifier_folder):
    mute = Mute(TorchClassifier(classifier_folder, "cpu"))
    photo = picture("PNG")
    tab = visit(mute)
    upload(tab, "photo.png", photo)
    wait_for(tab, rows(mute, photo))
    assert tab.locator("#explanation").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_class_names_are_text_and_nothing_is_wider_than_a_phone(
    scheme, visit, make_classifier_folder
):
    classifier = Explained(make_classifier_folder(HOSTILE), "cpu")
    photo = picture("PNG", (900, 100))
    tab = visit(classifier, width=360, scheme=scheme)
    upload(tab, "photo.png", photo)
    wait_for(tab, [(" ".join(name.split()), p) for name, p in rows(classifier, photo)])
    for name in HOSTILE:
        tab.select_option("#class", name)
        expect(tab.locator("#caption")).to_contain_text(" ".join(name.split()))
        assert tab.evaluate("document.documentElement.scrollWidth") == 360
    assert tab.title() == "fieldguide"
    assert tab.locator("#answer img, #card img, b").count() == 0
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 23, 21)"
    assert dark == (scheme == "dark")


def test_it_can_be_used_by_keyboard(visit, classifier):
    tab = visit(classifier)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "file"
    assert tab.locator("#drop").evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    # It is the browser's own file input, which opens a dialog by itself, but not always when
    # headless.
    chosen = tab.locator("input[type=file]:focus")
    assert chosen.is_enabled()
    photo = picture("PNG")
    chosen.set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": photo})
    wait_for(tab, rows(classifier, photo))
