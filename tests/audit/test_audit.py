"""The audit of an archive with planted mistakes, from `prepare` to the page and the CSV file."""

import csv
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from bundles import bundle_of
from PIL import Image
from typer.testing import CliRunner

from fieldguide.audit.audit import audit, write_suspects
from fieldguide.audit.audit_page import render_page
from fieldguide.cli import app
from fieldguide.core.errors import FieldguideError, StoreError
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
# file -> file and class of the other photo
NEAR_COPIES = {
    "bee/copy.png": ("crab/<b> of class ant.png", "crab"),
    "crab/<b> of class ant.png": ("bee/copy.png", "bee"),
}
EXACT_COPIES = {"ant/same.png": ("bee/same.png", "bee"), "bee/same.png": ("ant/same.png", "ant")}
COPIES = NEAR_COPIES | EXACT_COPIES


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
    files["crab/<b> of class ant.png"] = png(np.asarray(smooth) + 2)
    files["ant/same.png"] = files["bee/same.png"] = png(noise(2))
    changes = {"archive": str(pack(folder / "photos.zip", files)), "image_size": 16}
    params = make_params(data=changes, model={"conv_layers": 2})
    prepare(params.data, folder / "prepared")
    save_bundle(bundle_of(["ant", "bee", "crab"]), folder / "classifier")
    return Store(folder / "prepared"), params, folder / "classifier"


@pytest.fixture
def find(made):
    """Audits the made store by the mean colours of its photos."""
    store, params, _ = made

    def run(splits, audited, data=params.data, store=store):
        split = store.split(*splits)
        colours = split.images(np.arange(len(split))).mean((1, 2), dtype=np.float32)
        return audit(store, colours, data, splits=splits, audited=audited)

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
    copies = {one.file: (one.other, one.suggested) for one in by_kind["copy in another class"]}
    assert copies == COPIES
    details = {one.file: one.detail for one in by_kind["copy in another class"]}
    assert details["ant/same.png"] == "the same file as bee/same.png of class bee"
    assert details["crab/<b> of class ant.png"] == "looks like bee/copy.png of class bee"
    assert found.originals.pixels.keys() == set(COPIES)
    scores = [one.score for one in found.suspects]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    # The table of confused classes counts the doubtful labels, so it cannot say anything else.
    assert {(one.label, one.other) for one in found.confusions} >= {
        ("ant", "crab"),
        ("crab", "bee"),
    }
    assert sum(one.photos for one in found.confusions) == len(by_kind["label"])


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
    columns = ["file", "split", "class", "suggested class", "kind", "score", "detail"]
    assert list(rows[0]) == [*columns, "other file"]
    assert rows[0]["score"] == "1.0000"
    assert "<b>" not in page
    assert "&lt;b&gt; of class ant.png" in page
    # A picture of each suspect. The two photos of a pair of copies are side by side, and once.
    assert page.count("<img ") == len(rows)
    assert page.count("<figure>") == len(rows) - len(COPIES) // 2
    assert "Shown: the worst" not in page


def test_without_the_archive_a_note_says_what_is_not_checked(find, made):
    data = made[1].data.model_copy(update={"archive": "gone.zip"})
    found = find(["train", "val"], ["train", "val"], data)
    assert {"shape", "size"}.isdisjoint(one.kind for one in found.suspects)
    (note,) = found.notes
    assert "gone.zip does not exist" in note


def test_the_store_of_another_archive_is_refused(find, made, make_photos, pack, tmp_path):
    other = make_photos(each=30)
    archive = str(pack(tmp_path / "other.zip", other))
    data = made[1].data.model_copy(update={"archive": archive})
    with pytest.raises(StoreError, match=r"other\.zip: lacks \d+ of \d+ photos .* such as .*repro"):
        find(["train", "val"], ["train", "val"], data)


def test_photos_that_were_damaged_since_are_counted(find, made, tmp_path):
    packed = bytearray(Path(made[1].data.archive).read_bytes())
    with zipfile.ZipFile(made[1].data.archive) as archive:
        for name in ("bee/large.png", "bee/copy.png"):
            packed[archive.getinfo(name).header_offset + 200] ^= 255
    (tmp_path / "photos.zip").write_bytes(packed)
    data = made[1].data.model_copy(update={"archive": str(tmp_path / "photos.zip")})
    found = find(["train", "val", "test"], ["train", "val", "test"], data)
    (note,) = found.notes
    assert note.startswith("shape and size of 2 photos that the archive has damaged, such as bee/")
    assert "size" not in {one.kind for one in found.suspects}
    assert "bee/copy.png" not in found.originals.pixels
    page = render_page(found, made[0], most=60)
    assert note in page


def test_a_store_of_an_older_version_is_refused(made, find, tmp_path):
    shutil.copytree(made[0].folder, tmp_path / "prepared")
    (tmp_path / "prepared" / "left_out.csv").write_text("file,class\na.png,ant\n")
    with pytest.raises(StoreError, match=r"left_out\.csv: cannot be read .*'reason'.*dvc repro"):
        find(["train", "val"], ["train", "val"], store=Store(tmp_path / "prepared"))


def test_small_classes_are_not_judged_and_named(made, find, make_photos, pack, tmp_path):
    files = make_photos(each=30) | make_photos(classes=("=two", "three"), each=4, seed=3)
    data = made[1].data.model_copy(update={"archive": str(pack(tmp_path / "a.zip", files))})
    prepare(data, tmp_path / "prepared")
    splits = ["train", "val", "test"]
    found = find(splits, splits, data, store=Store(tmp_path / "prepared"))
    (note,) = found.notes
    assert note.startswith("labels of =two, three: a class needs at least 5 photos")
    labels = {one.label for one in found.suspects if one.kind == "label"}
    labels |= {one.label for one in found.confusions}
    assert labels.isdisjoint({"=two", "three"})


def test_a_store_of_small_classes_alone_has_no_doubtful_labels(
    made, find, make_photos, pack, tmp_path
):
    files = make_photos(each=4)
    data = made[1].data.model_copy(update={"archive": str(pack(tmp_path / "a.zip", files))})
    prepare(data, tmp_path / "prepared")
    found = find(["train", "val"], ["train"], data, store=Store(tmp_path / "prepared"))
    assert "label" not in {one.kind for one in found.suspects}
    assert found.confusions == []


def test_a_copy_of_a_test_photo_of_another_class_is_found(made, find, make_photos, pack, tmp_path):
    files = make_photos("train", each=10) | make_photos("test", each=3, seed=1)
    files["train/bee/copy.png"] = files["test/ant/00.png"]
    files["train/bee/own copy.png"] = files["test/bee/00.png"]
    data = made[1].data.model_copy(update={"archive": str(pack(tmp_path / "a.zip", files))})
    prepare(data, tmp_path / "prepared")
    store = Store(tmp_path / "prepared")
    found = find(["train", "val"], ["train", "val"], data, store=store)
    (one,) = (one for one in found.suspects if one.kind == "copy in another class")
    assert (one.file, one.other) == ("train/bee/copy.png", "test/ant/00.png")
    assert one.detail == "the same file as test/ant/00.png of class ant"
    assert render_page(found, store, most=60).count("<img ") == len(found.suspects) + 1


def test_the_page_opens_in_a_browser(find, made, tmp_path, visit):
    page = tmp_path / "audit.html"
    page.write_text(render_page(find(["train", "val"], ["train", "val"]), made[0], most=60))
    tab = visit(page, "#label img")
    broken = "images => images.filter(one => one.naturalWidth === 0).length"
    assert tab.eval_on_selector_all("img", broken) == 0


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """Makes a project of the made store the working folder."""
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
    return tmp_path


def test_the_command_writes_both_files_and_computes_features_once(project):
    first, second = (CliRunner().invoke(app, ["audit"]) for _ in range(2))
    assert first.exit_code == second.exit_code == 0, first.output + second.output
    assert "Computing features" in first.stdout
    assert "Computing features" not in second.stdout
    assert "4  the same photo in two classes" in first.stdout
    assert (project / "plots/audit.csv").is_file()
    assert "Audit of the photos" in (project / "plots/audit.html").read_text()


def test_an_audit_of_test_photos_does_not_overwrite_the_files_of_review(project):
    CliRunner().invoke(app, ["audit"])
    before = {file.name: file.read_bytes() for file in (project / "plots").iterdir()}
    result = CliRunner().invoke(app, ["audit", "--split", "test"])
    assert "plots/audit-test.csv" in result.stdout
    assert "`fieldguide review` reads plots/audit.csv" in result.stdout
    after = {file.name: file.read_bytes() for file in (project / "plots").iterdir()}
    assert after.items() > before.items()
    assert after.keys() - before.keys() == {"audit-test.csv", "audit-test.html"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backbone", "nonsense"], "--backbone: found 'nonsense'"),
        (["--backbone", "resnet18", "--weights", "none"], "--weights: found none; allowed: pre"),
        (["--backbone", "resnet18", "--weights", "gone"], "allowed for --weights: "),
        (["--weights", "resnet18.pt"], "--weights: found resnet18.pt; allowed: with --backbone"),
        (["--output", "a", "--table", "b/../a"], "--output, --table: found a twice"),
    ],
)
@pytest.mark.usefixtures("project")
def test_wrong_options_are_named(options, message):
    result = CliRunner().invoke(app, ["audit", *options])
    assert isinstance(result.exception, FieldguideError)
    assert message in str(result.exception)
