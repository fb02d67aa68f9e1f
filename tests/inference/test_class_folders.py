"""Photos in class folders: both of one name arrive, and nothing is overwritten."""

import hashlib
import json
import os
import resource
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from here import fieldguide_here

from fieldguide.core.errors import FieldguideError
from fieldguide.inference.class_folders import ClassFolders, folder_names
from fieldguide.network.bundle import load_bundle, save_bundle
from fieldguide.network.calibration import Calibration


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["bee", "sea lion", "été", "犬"], ["bee", "sea lion", "été", "犬"]),
        (["a/b", "a_b", "a:b"], ["a_b-2", "a_b", "a_b-3"]),
        (["Cat", "cat", "CAT-2"], ["Cat", "cat-2", "CAT-2-2"]),
        (["été", "e\u0301te\u0301"], ["été", "e\u0301te\u0301-2"]),  # one name on a Mac
        (["unsure", "Unsure"], ["unsure-2", "Unsure-3"]),
        ([".", "..", "../../etc", ""], ["_", "_.__", "_.._.._etc_", "_-2"]),
        ([".git", "__MACOSX", "b.dvc"], ["_.git_", "___MACOSX_", "_b.dvc_"]),
        (["con", "NUL.txt", "com1", "console"], ["_con_", "_NUL.txt_", "_com1_", "console"]),
        (["a\nb", "a\u202eb", "end.", "end "], ["a_b", "a_b-2", "end_", "end_-2"]),
        (["x" * 300, "x" * 301, "犬" * 100], ["x" * 200, "x" * 200 + "-2", "犬" * 66]),
    ],
)
def test_folder_names(classes, expected, tmp_path):
    names = folder_names(classes)
    assert [names[label] for label in classes] == expected
    for name in names.values():
        (tmp_path / name).mkdir()


@pytest.fixture
def sort():
    """Lays {photo: class} into class folders; returns the counts."""

    def run(folder, classes):
        folders = ClassFolders(folder, ["ant", "bee"], list(classes))
        rows = [
            {"photo": str(photo), "classes": [{"class": label, "probability": 0.5}]}
            for photo, label in classes.items()
        ]
        assert list(folders.sort(rows, list(classes))) == rows
        assert not [*folder.glob(".*")]
        return dict(folders.counts)

    return run


@pytest.fixture
def photo(tmp_path):
    """Writes a photo; returns its path."""

    def write(name, data):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def other_disk(tmp_path):
    """A folder on another file system, where hard links are impossible."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm on a file system of its own")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder) / "sorted"


def content(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.*")}


def test_photos_of_one_name_all_arrive_and_a_second_run_adds_only_new_ones(sort, photo, tmp_path):
    first, second = photo("cam1/a.jpg", b"one"), photo("cam2/a.jpg", b"two")
    target = tmp_path / "sorted"
    assert sort(target, {first: "ant", second: "ant"}) == {"linked": 2}
    digits = hashlib.md5(b"two").hexdigest()[:8]
    expected = {"ant/a.jpg": b"one", f"ant/a-{digits}.jpg": b"two"}
    assert content(target) == expected
    assert (target / "ant" / "a.jpg").samefile(first)
    copy = photo("cam3/a.jpg", b"two")
    third = photo("cam3/b.jpg", b"one")
    counts = sort(target, {first: "ant", second: "ant", copy: "ant", third: "bee"})
    assert counts == {"already there": 3, "linked": 1}
    assert content(target) == {**expected, "bee/b.jpg": b"one"}


def test_on_another_disk_photos_are_copied(sort, photo, other_disk):
    first, second = photo("cam1/a.jpg", b"one"), photo("cam2/a.jpg", b"two")
    os.utime(first, ns=(1_000_000_000, 2_000_000_000))
    assert sort(other_disk, {first: "ant", second: "ant"}) == {"copied": 2}
    assert (other_disk / "ant" / "a.jpg").stat().st_mtime_ns == 2_000_000_000
    assert sort(other_disk, {first: "ant", second: "ant"}) == {"already there": 2}
    assert sorted(content(other_disk).values()) == [b"one", b"two"]


def test_a_file_that_a_user_put_there_is_never_overwritten(sort, photo, tmp_path):
    target = tmp_path / "sorted"
    one = photo("cam/a.jpg", b"one")
    digits = hashlib.md5(b"one").hexdigest()[:8]
    mine = {"ant/a.jpg": b"mine", f"ant/a-{digits}.jpg": b"mine too"}
    for name, data in mine.items():
        photo(f"sorted/{name}", data)
    with pytest.raises(FieldguideError, match=rf"a-{digits}.jpg is another file"):
        sort(target, {one: "ant"})
    assert content(target) == mine


def test_a_file_that_appears_during_a_copy_is_not_overwritten(sort, photo, other_disk, monkeypatch):
    def other_process(*_):
        (other_disk / "ant" / "a.jpg").write_bytes(b"other")

    monkeypatch.setattr("shutil.copystat", other_process)  # the last step before the photo arrives
    assert sort(other_disk, {photo("cam/a.jpg", b"one"): "ant"}) == {"copied": 1}
    digits = hashlib.md5(b"one").hexdigest()[:8]
    assert content(other_disk) == {"ant/a.jpg": b"other", f"ant/a-{digits}.jpg": b"one"}


def test_long_names_are_cut_before_their_digits(sort, photo, tmp_path):
    name = "é" * 125 + ".jpg"  # 254 bytes
    photos = [photo(f"cam{k}/{name}", b"%d" % k) for k in range(3)]
    assert sort(tmp_path / "sorted", dict.fromkeys(photos, "ant")) == {"linked": 3}
    digits = [hashlib.md5(b"%d" % k).hexdigest()[:8] for k in (1, 2)]
    expected = [name, *("é" * 100 + f"-{found}.jpg" for found in digits)]
    assert sorted(content(tmp_path / "sorted")) == sorted(f"ant/{one}" for one in expected)


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ("tree", "tree"),
        ("tree", "tree/sorted"),
        ("tree/ant", "tree"),
        ("tree/unsure", "tree"),
        ("tree/ant/a.jpg", "tree"),  # as from tree/ant/*.jpg
        ("tree", "links"),  # links/ant is a link to tree/ant
    ],
)
def test_photos_are_never_put_where_the_next_run_finds_them(given, folder, photo, tmp_path):
    photo("tree/ant/a.jpg", b"one")
    photo("tree/unsure/b.jpg", b"two")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "ant").symlink_to(tmp_path / "tree" / "ant")
    with pytest.raises(FieldguideError, match=r"--sort: found .* is a place of photos"):
        ClassFolders(tmp_path / folder, ["ant", "bee"], [tmp_path / given])
    ClassFolders(tmp_path / "tree", ["bee"], [tmp_path / "tree/ant", photo("tree/c.jpg", b"3")])


def test_a_full_disk_leaves_no_half_a_photo(sort, photo, other_disk):
    large = photo("cam/large.jpg", bytes(20_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(FieldguideError, match=r"ant/large.jpg: .* \(File too large\)"):
            sort(other_disk, {large: "ant"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [*other_disk.rglob("*")] == [other_disk / "ant"]


@pytest.mark.slow
def test_predict_sorts_sure_unsure_and_broken_photos(tmp_path, classifier_folder, make_photos):
    for name, data in make_photos("trip", each=3).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "trip" / "broken.png").write_bytes(b"broken")

    def run(*options):
        model = ("--model", classifier_folder, "--sort", "sorted")
        done = fieldguide_here("predict", "trip", *model, *options, cwd=tmp_path)
        assert done.returncode == 1  # a photo is broken
        return done

    done = run("--json", "--min-confidence", "0.9")
    answers = [row for row in json.loads(done.stdout) if "classes" in row]
    sure = [row for row in answers if row["classes"][0]["probability"] >= 0.9]
    assert 0 < len(sure) < len(answers) == 9
    assert [row for row in answers if row["answer"] != "unsure"] == sure
    assert "photos in class folders: 9 linked" in done.stderr
    expected = {((tmp_path / row["photo"]).stat().st_ino, row["answer"]) for row in answers}
    found = (tmp_path / "sorted").glob("*/*")
    assert {(file.stat().st_ino, file.parent.name) for file in found} == expected
    own = replace(load_bundle(classifier_folder), calibration=Calibration(1.0, 0.95, 0.9))
    save_bundle(own, tmp_path / "own")
    done = run("-o", "answers.csv", "--min-confidence", "auto", "--model", "own")
    assert "photos in class folders: 9 already there" in done.stderr
