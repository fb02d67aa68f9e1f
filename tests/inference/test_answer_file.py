"""`fieldguide predict --output`: whole files, also after a kill or on a full disk."""

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from here import fieldguide_here

from fieldguide.inference.answer_file import write_answers

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = 200
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory, classifier_folder, make_photos):
    """A folder with models/classifier, and 200 photos in trip/; each takes a while to decode."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "models").mkdir()
    (folder / "models" / "classifier").symlink_to(classifier_folder)
    (folder / "trip").mkdir()
    large = list(make_photos(each=2, pixels=700).values())
    for number in range(PHOTOS):
        (folder / "trip" / f"{number:03}.png").write_bytes(large[number % len(large)])
    (folder / "trip" / "070.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def whole(project):
    """The bytes of the file that a run without interruption writes."""
    done = fieldguide_here("predict", "trip", "-o", "whole.csv", cwd=project)
    assert done.returncode == 1  # a photo is broken
    return (project / "whole.csv").read_bytes()


def start(project, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "fieldguide.cli", "predict", "trip", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def left(project):
    return sorted(file.name for file in project.iterdir() if file.name.startswith("."))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "Ctrl-C"])
def test_a_resumed_run_ends_in_the_bytes_of_a_run_without_interruption(how, project, whole):
    command = ("-o", "answers.csv", "--sort", "sorted")
    process = start(project, *command)
    rows = project / ".answers.csv.unfinished"
    while not rows.exists() or rows.read_bytes().count(b"\n") <= 64:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    done = fieldguide_here("predict", "trip", *command, "--resume", cwd=project)
    assert "another process" in done.stderr
    process.send_signal(how)
    _, errors = process.communicate()
    assert "Traceback" not in errors
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume goes on" in errors
    answered = rows.read_bytes().count(b"\n") - 1  # the first line describes the run
    assert 64 <= answered < PHOTOS
    assert not (project / "answers.csv").exists()
    with rows.open("ab") as file:  # a kill may come in the middle of a row
        file.write(b'{"photo": "trip/')
    shutil.rmtree(project / "sorted")
    done = fieldguide_here("predict", "trip", *command, "--resume", cwd=project)
    assert done.returncode == 1
    assert done.stdout == "answers.csv\n"
    assert "199 of 200 photos classified" in done.stderr
    assert (project / "answers.csv").read_bytes() == whole
    assert len([*(project / "sorted").glob("*/*")]) == 199  # with those of the interrupted run
    (project / "answers.csv").unlink()
    shutil.rmtree(project / "sorted")
    assert left(project) == []


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        (lambda _: b"", 0),
        (lambda data: bytes(len(data)), 0),
        (lambda data: b"[1]\n" + data, 0),
        (lambda data: data.replace(b'"99.png"', bytes(8)), 64),
        (lambda data: data.replace(b'{"photo": "63.png"', b"[]\n"), 0),
        (lambda data: data, 64),
    ],
    ids=["empty", "zeros", "no description", "a row", "a batch", "none"],
)
def test_what_a_power_cut_damages_is_classified_again(damage, first, tmp_path):
    classes = [{"class": "ant", "probability": 0.5}]
    rows = [{"photo": f"{k}.png", "classes": classes} for k in range(PHOTOS)]
    header = ["photo", "class_1", "probability_1", "error"]
    started = []

    def write(name, end=PHOTOS, *, resume=False):
        def rows_from(start):
            started.append(start)
            yield from rows[start:end]
            if end < PHOTOS:
                raise KeyboardInterrupt

        write_answers(
            *(tmp_path / name, header, rows_from, iter), run={}, photos=PHOTOS, resume=resume
        )

    write("whole.csv")
    with pytest.raises(KeyboardInterrupt):
        write("answers.csv", 110)
    unfinished = tmp_path / ".answers.csv.unfinished"
    unfinished.write_bytes(damage(unfinished.read_bytes()))
    write("answers.csv", resume=True)
    assert started == [0, 0, first]
    assert (tmp_path / "answers.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert left(tmp_path) == []


def test_a_full_disk_leaves_no_file_and_loses_no_answer(project, whole):
    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    process = start(project, "-o", "answers.csv", preexec_fn=full)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "answers.csv: cannot be written (File too large); --resume goes on" in errors
    assert not (project / "answers.csv").exists()
    rows = (project / ".answers.csv.unfinished").read_bytes()
    assert 0 < len(rows) <= 10_000

    def resume(*options):
        return fieldguide_here(
            *("predict", "trip", "-o", "answers.csv", "--resume", *options), cwd=project
        ).stderr

    first = project / "trip" / "000.png"
    changed = first.stat().st_mtime_ns
    os.utime(first, (1, 1))
    message = "answers.csv: --resume: the list of photos, --top changed since the interrupted run"
    assert message in resume("--top", "2")
    os.utime(first, ns=(changed, changed))
    assert "199 of 200 photos classified" in resume()
    assert (project / "answers.csv").read_bytes() == whole
    (project / "answers.csv").unlink()
    assert left(project) == []


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_file_holds_what_the_terminal_shows(kind, project):
    old = project / "new" / f".some.{kind.upper()}.unfinished"
    old.parent.mkdir(exist_ok=True)
    old.write_text("of another run, which is not resumed\n")
    some = ["predict", "trip/069.png", "trip/070.png", "--min-confidence", "1"]
    printed = fieldguide_here(*some, f"--{kind}", cwd=project).stdout
    done = fieldguide_here(*some, "-o", f"new/some.{kind.upper()}", cwd=project)
    assert "trip/070.png: unreadable" in done.stderr
    written = (project / "new" / f"some.{kind.upper()}").read_text(encoding="utf-8")
    assert written == printed
    if kind == "json":
        answers = json.loads(written)
        assert answers[0]["answer"] == "unsure"
    else:
        answers = list(csv.DictReader(written.splitlines()))
        assert (answers[0]["answer"], answers[1]["answer"]) == ("unsure", "")
        assert answers[0]["class_1"] in ("ant", "bee", "crab")


def test_parquet(project):
    parquet = pytest.importorskip(
        "pyarrow.parquet", reason="needs pyarrow, which requirements.lock leaves out"
    )
    some = ["predict", "trip/069.png", "trip/070.png", "--top", "9"]
    fieldguide_here(*some, "-o", "some.parquet", cwd=project)
    (answer, error) = json.loads(fieldguide_here(*some, "--json", cwd=project).stdout)
    found, broken = parquet.read_table(project / "some.parquet").to_pylist()
    assert found.pop("error") is None
    expected = {"photo": answer["photo"]}
    for k, one in enumerate(answer["classes"], start=1):
        expected |= {f"class_{k}": one["class"], f"probability_{k}": one["probability"]}
    assert found == expected
    assert (broken["class_1"], broken["error"]) == (None, error["error"])


def test_parquet_without_pyarrow_fails_before_any_work(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = fieldguide_here("predict", "trip", "-o", "some.parquet", cwd=project)
    assert done.returncode == 1
    assert "pip install 'fieldguide[parquet]'" in done.stderr
