"""Several archives are one data set, in any order, and DVC must notice a change of each."""

import re
import shutil
from pathlib import Path

import pytest

from fieldguide.core.errors import ArchiveError, ParamsError
from fieldguide.core.store import SPLITS, Store
from fieldguide.prepare.archives import check_deps, open_archives
from fieldguide.prepare.left_out import LeftOut
from fieldguide.prepare.prepare import prepare


@pytest.fixture
def photos(tmp_path, pack, make_photos):
    """A folder of three archives: two with training photos of equal names, one with test photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    pack(folder / "b.zip", make_photos("train", each=5, seed=0))
    pack(folder / "a.tar.gz", make_photos("train", each=5, seed=1))
    pack(folder / "c.tar", make_photos("val", each=3, seed=2))
    return folder


@pytest.fixture
def stored(tmp_path, make_params):
    """Prepare, and return {file: bytes} of the store: stored(data.archive)."""

    def make(archive, target="prepared"):
        data = {"archive": archive, "image_size": 16, "shard_size": 1}
        prepared = prepare(make_params(data=data, model={"conv_layers": 2}).data, tmp_path / target)
        make.prepared = prepared
        return {file.name: file.read_bytes() for file in (tmp_path / target).iterdir()}

    return make


def members_of(value):
    with open_archives(value) as archives:
        return {member.source: archives.read(member) for member in archives.members}


def test_a_folder_of_archives_equals_a_list_of_them_in_any_order(photos, stored):
    names = ["a.tar.gz", "b.zip", "c.tar"]
    whole = stored(str(photos))
    counts = stored.prepared.counts
    photos_of = {name: sum(count.photos for count in counts[name].values()) for name in counts}
    assert photos_of == {"train": 24, "val": 6, "test": 9}
    for order in ([0, 1, 2], [2, 0, 1]):
        assert stored([str(photos / names[k]) for k in order]) == whole


def test_equal_names_in_two_archives_are_two_photos(photos, stored, tmp_path):
    stored(str(photos))
    opened = Store(tmp_path / "prepared")
    sources = {source for name in SPLITS for source in opened.split(name).sources}
    assert len(sources) == 39
    assert {"a.tar.gz/train/ant/00.png", "b.zip/train/ant/00.png"} <= sources
    assert set(opened.split("test").sources) == {
        f"c.tar/val/{label}/{k:02d}.png" for label in ("ant", "bee", "crab") for k in range(3)
    }


def test_several_archives_give_the_pixels_of_one_archive_with_all_photos(
    photos, stored, pack, tmp_path
):
    """Photos, classes and splits are the same; only the names differ."""
    files = {}
    for k, source in enumerate(sorted(data := members_of(str(photos)))):
        _, split, label, _ = source.split("/")
        files[f"{split}/{label}/{k}.png"] = data[source]
    several = stored(str(photos))
    one = stored(str(pack(tmp_path / "all.zip", files)))
    pixels = [name for name in one if name.endswith(".npy")]
    assert len(pixels) == 3
    assert {name: several[name] for name in pixels} == {name: one[name] for name in pixels}


def test_names_of_a_single_archive_have_no_prefix(photos):
    assert members_of(str(photos / "c.tar")).keys() == {
        f"val/{label}/{k:02d}.png" for label in ("ant", "bee", "crab") for k in range(3)
    }


def test_names_in_a_folder_of_one_archive_have_a_prefix(photos):
    (photos / "a.tar.gz").unlink()
    (photos / "b.zip").unlink()
    # So that a second archive changes no name.
    assert all(name.startswith("c.tar/val/") for name in members_of(str(photos)))


def test_messages_name_the_archive_of_a_photo(photos, stored, pack, make_photos):
    photo = next(iter(make_photos(each=1, seed=2).values()))  # as in the test set
    pack(photos / "d.zip", {"train/ant/x.png": b"", "train/bee/y.png": photo, "z.png": photo})
    with pytest.raises(ArchiveError, match=r"1 of 41 .*\n  d\.zip/train/ant/x\.png: the file is e"):
        stored(str(photos))


def test_photos_left_out_are_listed_with_their_archive(photos, stored, pack, make_photos):
    photo = next(iter(make_photos("val", each=3, seed=2).values()))
    pack(photos / "d.zip", {"train/bee/y.png": photo, "z.png": photo})
    stored(str(photos))
    assert {item.file: item.reason for item in stored.prepared.left_out} == {
        "d.zip/train/bee/y.png": "duplicate",
        "d.zip/z.png": "misplaced",
    }


def test_documents_beside_archives_are_named_and_hidden_files_are_not(photos, stored):
    before = stored(str(photos))
    (photos / "a.tar.gz.dvc").write_text("outs: []", encoding="utf-8")
    (photos / ".hidden.zip").write_bytes(b"no archive")
    assert stored(str(photos)) == before
    (photos / "README.md").write_text("about", encoding="utf-8")
    stored(str(photos))
    (item,) = stored.prepared.left_out
    assert item == LeftOut("README.md", "", "not a photo", ".md")


@pytest.mark.parametrize(
    "name", ["train/ant/1.jpg", "cover.PNG", "more.7z", "x.tar.zst", "b.zip.001", "sub/c.zip"]
)
def test_a_folder_of_archives_and_other_files_is_refused(name, photos, stored):
    (photos / name).parent.mkdir(parents=True, exist_ok=True)
    (photos / name).write_bytes(b"x")
    with pytest.raises(
        ArchiveError, match=rf"archives \(a\.tar\.gz\) and other files \({re.escape(name)}\); all"
    ):
        stored(str(photos))


def test_two_archives_with_one_name_are_refused(photos, stored, tmp_path):
    shutil.copy(photos / "b.zip", tmp_path / "b.zip")
    with pytest.raises(ArchiveError, match=r"photos/b\.zip and .*/b\.zip have one name; allowed"):
        stored([str(photos), str(tmp_path / "b.zip")])


def test_a_missing_or_damaged_archive_is_named(photos, stored):
    with pytest.raises(ArchiveError, match=r"data\.archive: .*/no\.zip does not exist"):
        stored([str(photos), "/no/no.zip"])
    (photos / "b.zip").write_bytes(b"PK")
    with pytest.raises(ArchiveError, match=r"b\.zip: not an archive, or cut short or damaged"):
        stored(str(photos))


def test_an_archive_may_be_a_folder_of_photos_too(photos, stored, pack, make_photos, tmp_path):
    unpacked = pack(tmp_path / "more", make_photos("train", each=2, seed=7))
    stored([str(photos), str(unpacked)])
    opened = Store(tmp_path / "prepared")
    sources = [source for name in ("train", "val") for source in opened.split(name).sources]
    assert sum(source.startswith("more/train/") for source in sources) == 6


class TestDeps:
    """DVC cannot put a list into deps, so a list needs its own lines in dvc.yaml."""

    @pytest.fixture
    def dvc_yaml(self, tmp_path, monkeypatch):
        """Writes a text to dvc.yaml in the current folder."""
        monkeypatch.chdir(tmp_path)
        return Path("dvc.yaml").write_text

    @pytest.fixture
    def write_deps(self, dvc_yaml):
        def write(deps):
            lines = "\n".join(f"      - {dep}" for dep in deps)
            dvc_yaml(f"stages:\n  prepare:\n    deps:\n{lines}\n", encoding="utf-8")

        return write

    @pytest.mark.parametrize(
        "deps",
        [
            ["${data.archive[0]}", "${data.archive[1]}"],
            ["data/b.zip", "stages/prepare.py", "data/a.zip"],
            ["${data.archive[1]}", "data/a.zip:\n          cache: false"],
        ],
    )
    def test_a_list_with_its_deps_is_accepted(self, deps, write_deps, make_params):
        write_deps(deps)
        check_deps(make_params(data={"archive": ["data/a.zip", "data/b.zip"]}).data)

    def test_a_single_path_needs_no_check(self, write_deps, make_params):
        write_deps([])
        check_deps(make_params(data={"archive": "data/a.zip"}).data)

    @pytest.mark.parametrize("deps", [["${data.archive}"], ["data/a.zip.dvc"], ["data"]])
    def test_missing_deps_are_refused_with_the_lines_to_add(self, deps, write_deps, make_params):
        write_deps(deps)
        with pytest.raises(
            ArchiveError,
            match=r"2 of the list's 2 archives .*\n {6}- \$\{data\.archive\[0\]\}  # data/a\.zip\n"
            r" {6}- \$\{data\.archive\[1\]\}  # data/b\.zip$",
        ):
            check_deps(make_params(data={"archive": ["data/a.zip", "data/b.zip"]}).data)

    def test_only_the_missing_deps_are_shown(self, write_deps, make_params):
        write_deps(["${data.archive[0]}"])
        with pytest.raises(ArchiveError, match=r"1 of the list's 2 .*:\n.*\[1\]\}  # data/b\.zip$"):
            check_deps(make_params(data={"archive": ["data/a.zip", "data/b.zip"]}).data)

    @pytest.mark.parametrize("text", ["", "stages: {}", "stages: {prepare: {}}", "[]"])
    def test_a_dvc_yaml_without_the_stage_has_no_deps(self, text, dvc_yaml, make_params):
        dvc_yaml(text, encoding="utf-8")
        with pytest.raises(ArchiveError, match=r"lacks 1 of the list's 1 archives"):
            check_deps(make_params(data={"archive": ["a.zip"]}).data)

    def test_a_missing_dvc_yaml_is_refused(self, tmp_path, monkeypatch, make_params):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ParamsError, match=r"dvc\.yaml: cannot be read"):
            check_deps(make_params(data={"archive": ["a.zip"]}).data)

    def test_a_label_table_must_be_a_dep_too(self, write_deps, make_params, tmp_path):
        def check(labels, deps, archive="data/photos"):
            write_deps(deps)
            check_deps(make_params(data={"archive": archive, "labels": labels}).data)

        for name in ("data/labels/a.csv", "data/photos/a.csv", "data/a.csv"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("file,label", encoding="utf-8")
        check("data/labels/a.csv", ["data/labels"])
        check("./data/a.csv", ["data/a.csv"])
        check("data/photos/a.csv", [])  # in the archive, which is a dep
        check("in_the_archive.csv", [])
        with pytest.raises(
            ArchiveError,
            match=r"data/a\.csv is no dep .* move it to data/labels/, .*\n +- data/a\.csv$",
        ):
            check("data/a.csv", ["data/labels"])
