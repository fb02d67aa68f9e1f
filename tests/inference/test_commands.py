"""`fieldguide predict` and `fieldguide explain`, as a user starts them."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from here import fieldguide_here
from PIL import Image

import fieldguide
from fieldguide.network.bundle import Calibration, load_bundle, save_bundle

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture
def command(tmp_path, classifier_folder):
    """Runs fieldguide in a folder with photos and models/classifier.

    It runs in a process of its own (own=True), or in the test's process, which is quicker because
    PyTorch is already loaded there.
    """
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "classifier").symlink_to(classifier_folder)

    def process(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "fieldguide.cli", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    def run(*arguments, status=0, own=False):
        done = process(*arguments) if own else fieldguide_here(*arguments, cwd=tmp_path)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def folder(tmp_path, make_photos):
    """A folder with three photos, a broken one and a text, in subfolders."""
    for name, data in make_photos("trip", each=1, pixels=24).items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "trip" / "notes.txt").write_text("not a photo, so it is not read")
    (tmp_path / "trip" / "bee" / "broken.JPG").write_bytes(b"broken")
    for hidden in ("._00.png", "@eaDir/00.png"):
        (tmp_path / "trip" / "ant" / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / "trip" / "ant" / hidden).write_bytes(b"not read either")
    return tmp_path / "trip"


def test_a_folder_as_json(command, folder):
    done = command("predict", "trip", "--json", "--top", "2", status=1, own=True)
    answers = json.loads(done.stdout)
    assert [one["photo"] for one in answers] == [
        *("trip/ant/00.png", "trip/bee/00.png", "trip/bee/broken.JPG", "trip/crab/00.png"),
    ]
    assert answers[2] == {
        "photo": "trip/bee/broken.JPG",
        "error": "trip/bee/broken.JPG: unreadable (cannot identify image file)",
    }
    classifier = fieldguide.load(folder.parent / "models" / "classifier")
    for k in (0, 1, 3):
        expected = classifier.predict(folder.parent / answers[k]["photo"]).top(2)
        found = {one["class"]: one["probability"] for one in answers[k]["classes"]}
        assert found == pytest.approx(expected, abs=1e-6)
    assert "3 of 4 photos classified" in done.stderr
    assert "1 file skipped as no photo: 1 .txt" in done.stderr


def test_csv_and_table(command, folder):
    done = command("predict", "trip/ant/00.png", "trip/crab", "--csv", "--top", "9")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["photo"] for row in rows] == ["trip/ant/00.png", "trip/crab/00.png"]
    for row in rows:
        assert sorted(row[f"class_{k}"] for k in (1, 2, 3)) == ["ant", "bee", "crab"]
        assert sum(float(row[f"probability_{k}"]) for k in (1, 2, 3)) == pytest.approx(1)
        assert row["error"] == ""
        assert "class_4" not in row
    done = command("predict", "trip", "--top", "1", status=1)
    lines = done.stdout.splitlines()
    assert [line.split("   ")[0].strip() for line in lines] == [
        *("trip/ant/00.png", "trip/bee/00.png", "trip/crab/00.png"),
    ]
    assert all(line.endswith("%") for line in lines)
    assert "trip/bee/broken.JPG: unreadable" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "none.jpg"], "none.jpg: cannot be read (No such file or directory)"),
        (["predict", "empty"], "empty: found no photo; allowed: .avif"),
        (["predict", "trip", "--json", "--csv"], "--json, --csv and --output: found several"),
        (["predict", "trip", "-o", "answers.txt"], "--output: found answers.txt; allowed: a name"),
        (["predict", "trip", "--resume"], "--resume: found no --output"),
        (["predict", "trip", "--sort", "trip/x"], "trip/x, but trip/x/ant is a place of photos"),
        (["predict", "trip", "--sort", "trip/notes.txt/x"], "trip/notes.txt/x"),
        (
            ["predict", "trip", "--min-confidence", "nan"],
            "--min-confidence: found 'nan'; allowed: ",
        ),
        (["predict", "trip", "--min-confidence", "1.1"], "--min-confidence: found '1.1'"),
        (["predict", "trip", "--min-confidence", ""], "--min-confidence: found ''; allowed: auto"),
        (["predict", "trip", "--min-confidence", "automatic"], "found 'automatic'; allowed: auto"),
        (["predict", "trip", "--min-confidence", "auto"], "it was trained on its validation"),
        (["predict", "trip", "--model", "nowhere"], "--model nowhere: no such folder"),
        (["predict", "trip", "--model", "x.onnx"], "x.onnx: cannot be read"),
        (["explain", "trip/notes.txt"], "notes.txt: unreadable"),
        (["explain", "trip/ant/00.png", "--class", "newt"], "--class: found class 'newt'"),
        (
            ["explain", "trip/ant/00.png", "-o", "trip/ant/00.jpg"],
            "--output: found trip/ant/00.jpg",
        ),
        (["explain", "trip/ant/00.png", "-o", "trip/notes.txt/x.png"], "trip/notes.txt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(arguments, message, command, folder):
    (folder.parent / "empty").mkdir()
    # A process of its own is quick if the mistake is found before PyTorch is imported.
    own = arguments[1] == "empty" or "--csv" in arguments or "x.onnx" in arguments
    done = command(*arguments, status=1, own=own)
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("option", ["--output", "--sort"])
def test_an_empty_name_is_not_taken_for_this_folder(option, command, folder):
    done = command("predict", "trip", option, "", status=2)
    assert f"Invalid value for '{option}'" in done.stderr
    assert "found ''; allowed: a name" in done.stderr


def test_why_a_classifier_has_no_min_confidence(command, folder, classifier_folder):
    none = replace(load_bundle(classifier_folder), calibration=Calibration(1.0, 0.95, None))
    save_bundle(none, folder.parent / "none")
    done = command("predict", "trip", "--model", "none", "--min-confidence", "auto", status=1)
    assert "because no confidence reached train.target_precision on its val" in done.stderr


def test_a_link_stays_and_its_target_is_written(command, folder):
    for name in ("answers.csv", "why.png"):
        (folder.parent / name).symlink_to(folder.parent / "real" / name)
    command("predict", "trip/ant", "-o", "answers.csv")
    command("explain", "trip/ant/00.png", "-o", "why.png")
    assert {file.name for file in (folder.parent / "real").iterdir()} == {"answers.csv", "why.png"}
    assert (folder.parent / "answers.csv").is_symlink()
    assert (folder.parent / "why.png").is_symlink()


NAMES = {
    b"sur\xff\xfe.png": "sur\\udcff\\udcfe.png",
    b"sur\xff\xfd.png": "sur\\udcff\\udcfd.png",
    **{name.encode(): name for name in ("cr\rx.png", "a\nb.png", 'q",.png', "rtl\u202e.png")},
}


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_names_of_photos_are_kept(kind, command, folder):
    for name in NAMES:
        (folder / os.fsdecode(name)).write_bytes((folder / "bee" / "00.png").read_bytes())
    given = [os.fsdecode(b"trip/" + name) for name in NAMES]
    if kind == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    command("predict", *given, "-o", f"answers.{kind}", "--sort", "sorted")
    written = folder.parent / f"answers.{kind}"
    if kind == "csv":
        with written.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    elif kind == "json":
        rows = json.loads(written.read_text(encoding="utf-8"))
    else:
        rows = parquet.read_table(written).to_pylist()
    assert [row["photo"] for row in rows] == [f"trip/{name}" for name in NAMES.values()]
    found = {os.fsencode(file.name) for file in (folder.parent / "sorted").glob("*/*")}
    assert found == set(NAMES)


def test_explain_writes_a_picture(command, folder):
    assert command("explain", "trip/ant/00.png", own=True).stdout == "00_explained.png\n"
    with Image.open(folder.parent / "00_explained.png") as picture:
        assert picture.size == (880, 517)
    command("explain", "trip/ant/00.png", "--class", "crab", "-o", "out/crab.png")
    assert (folder.parent / "out" / "crab.png").is_file()


def test_a_reader_that_closes_its_end_early_is_not_an_error(command, folder, tmp_path):
    """For example `fieldguide predict FOLDER | head -1`."""
    code = f"{sys.executable} -m fieldguide.cli predict trip trip trip --top 1 | head -1"
    done = subprocess.run(
        ["/bin/sh", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("trip/ant/00.png")
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def in_terminal(*arguments, cwd, out=None):
    """Run `fieldguide predict` in a terminal, or only its stderr; return what is shown."""
    main, terminal = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "fieldguide.cli", "predict", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm"},
        stdout=out or terminal,
        stderr=terminal,
        check=False,
    )
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(main, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(main)
    return shown


def test_a_name_does_not_control_the_terminal(folder, tmp_path, command):
    (folder / "crab" / "00.png").rename(folder / "x\x1b[2J.png")
    shown = in_terminal("trip/x\x1b[2J.png", "--csv", cwd=tmp_path)
    assert '"trip/x\ufffd[2J.png"'.encode() in shown
    assert b"\x1b[2J" not in shown


def test_a_terminal_gets_a_progress_bar_and_a_file_does_not(folder, tmp_path, command):
    with (tmp_path / "out.json").open("w") as out:
        shown = in_terminal("trip", "--json", cwd=tmp_path, out=out)
    assert b"photos" in shown
    assert b"100%" in shown
    assert len(json.loads((tmp_path / "out.json").read_text())) == 4
