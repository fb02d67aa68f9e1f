"""The audit of an archive with planted mistakes, from `prepare` to the page and the CSV file."""

import csv
import io

import numpy as np
import pytest
import yaml
from bundles import bundle_of
from PIL import Image
from typer.testing import CliRunner

from fieldguide.audit.audit import audit, files_of, write_suspects
from fieldguide.audit.audit_page import render_page
from fieldguide.cli import app
from fieldguide.core.errors import ParamsError
from fieldguide.core.store import Store
from fieldguide.network.bundle import save_bundle
from fieldguide.prepare.prepare import prepare

PLANTED = {  # kind -> file
    "dark": "ant/dark.png",
    "bright": "ant/bright.png",
    "empty": "ant/empty.png",
    "blurred": "ant/blurred.png",
    "shape": "bee/long.png",
    "size": "bee/large.png",
}
WRONG = {"ant/wrong.png": "crab", "crab/wrong.png": "bee"}  # file -> true class
COPIES = ("bee/copy.png", "crab/<b>copy.png")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_params, make_photos, pack):
    """The store of an archive with planted mistakes, its params, and a classifier's folder."""
    folder = tmp_path_factory.mktemp("audit")
    files = make_photos(each=30)
    rng = np.random.default_rng(5)

    def noise(channel, size=(20, 20)):
        grid = rng.uniform(0, 100, (*size, 3))
        grid[..., channel] += 120
        return grid

    files["ant/wrong.png"], files["crab/wrong.png"] = png(noise(2)), png(noise(1))
    stripes = np.tile([0, 70], (20, 10))[..., None].repeat(3, axis=2)
    files["ant/dark.png"] = png(stripes)
    white = 250 + noise(0) / 50
    white[:3, :3] = 0  # fewer than 5 % of the pixels
    files["ant/bright.png"] = png(white)
    files["ant/empty.png"] = png(100 + noise(0) / 100)
    files["ant/blurred.png"] = png(noise(0) * 0 + np.linspace(50, 200, 20)[:, None])
    files["bee/long.png"] = png(noise(1, (20, 70)))
    files["bee/large.png"] = png(noise(1).repeat(5, axis=0).repeat(5, axis=1))
    smooth = Image.fromarray(noise(1, (5, 5)).astype(np.uint8)).resize((40, 40))
    files["bee/copy.png"] = png(np.asarray(smooth))
    files["crab/<b>copy.png"] = png(np.asarray(smooth) + 2)
    changes = {"archive": str(pack(folder / "photos.zip", files)), "image_size": 16}
    params = make_params(data=changes, model={"conv_layers": 2})
    prepare(params.data, folder / "prepared")
    save_bundle(bundle_of(["ant", "bee", "crab"]), folder / "classifier")
    return Store(folder / "prepared"), params, folder / "classifier"


@pytest.fixture
def find(made):
    """Audits the made store by the mean colours of its photos."""
    store, params, _ = made

    def run(splits, shown, data=params.data):
        split = store.split(*splits)
        colours = split.images(np.arange(len(split))).mean((1, 2), dtype=np.float32)
        return audit(store, colours, data, splits=splits, shown=shown)

    return run


def test_planted_mistakes_are_found_and_nearly_nothing_else(find):
    found = find(["train", "val", "test"], ["train", "val", "test"])
    by_kind = {}
    for one in found.suspects:
        by_kind.setdefault(one.kind, []).append(one)
    for kind, file in PLANTED.items():
        files = {one.file for one in by_kind[kind]}
        assert file in files, kind
        assert files <= set(PLANTED.values()), kind  # a white photo may be blurred too
    labels = {one.file: one.suggested for one in by_kind["label"]}
    assert labels.items() >= WRONG.items()
    assert set(labels) - set(WRONG) <= set(PLANTED.values())
    copies = {
        one.file: (one.suggested, files_of(one)[1]) for one in by_kind["copy in another class"]
    }
    assert copies == {COPIES[0]: ("crab", COPIES[1]), COPIES[1]: ("bee", COPIES[0])}
    assert found.originals.pixels.keys() == set(COPIES)
    scores = [one.score for one in found.suspects]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert {(one.label, one.other) for one in found.confusions} >= {
        ("ant", "crab"),
        ("crab", "bee"),
    }


def test_test_photos_are_suspects_only_on_request(find, made):
    test = set(made[0].split("test").sources)
    found = find(["train", "val"], ["train", "val"])
    assert not test & {one.file for one in found.suspects}
    found = find(["train", "val", "test"], ["test"])
    assert {one.file for one in found.suspects} <= test | set(COPIES)
    assert list(found.photos) == ["test"]


def test_csv_and_page_have_the_same_bytes_twice_and_escape_names(find, made, tmp_path):
    written = []
    for _ in range(2):
        found = find(["train", "val"], ["train", "val"])
        write_suspects(tmp_path / "audit.csv", found.suspects)
        page = render_page(found, made[0], most=60)
        written.append(((tmp_path / "audit.csv").read_bytes(), page))
    assert written[0] == written[1]
    with (tmp_path / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "split", "class", "suggested class", "kind", "score", "detail"]
    assert rows[0]["score"] == "1.0000"
    assert "<b>" not in page
    assert "&lt;b&gt;copy.png" in page
    # Of each suspect a picture, and of a copy also the photo that it looks like.
    assert page.count("<img ") == len(rows) + len(COPIES)


def test_without_the_archive_a_note_says_what_is_not_checked(find, made):
    data = made[1].data.model_copy(update={"archive": "gone.zip"})
    found = find(["train", "val"], ["train", "val"], data)
    assert {"shape", "size"}.isdisjoint(one.kind for one in found.suspects)
    (note,) = found.notes
    assert "gone.zip does not exist" in note


def test_the_page_opens_in_a_browser(find, made, tmp_path, visit):
    page = tmp_path / "audit.html"
    page.write_text(render_page(find(["train", "val"], ["train", "val"]), made[0], most=60))
    tab = visit(page, "#label img")
    broken = "images => images.filter(one => one.naturalWidth === 0).length"
    assert tab.eval_on_selector_all("img", broken) == 0


def test_the_command_writes_both_files_and_computes_features_once(made, tmp_path, monkeypatch):
    store, params, classifier = made
    (tmp_path / "data").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "data" / "prepared").symlink_to(store.folder)
    (tmp_path / "models" / "classifier").symlink_to(classifier)
    raw = params.model_copy(
        update={"compute": params.compute.model_copy(update={"portable": False})}
    )
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump(raw.model_dump(mode="json"), sort_keys=False)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    first, second = (CliRunner().invoke(app, ["audit"]) for _ in range(2))
    assert first.exit_code == second.exit_code == 0, first.output + second.output
    assert "Computing features" in first.stdout
    assert "Computing features" not in second.stdout
    assert "2  the same photo in two classes" in first.stdout
    assert (tmp_path / "plots/audit.csv").is_file()
    assert "Audit of the photos" in (tmp_path / "plots/audit.html").read_text()
    wrong = CliRunner().invoke(app, ["audit", "--backbone", "nonsense"])
    assert isinstance(wrong.exception, ParamsError)
    assert "found 'nonsense'" in str(wrong.exception)
