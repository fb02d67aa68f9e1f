"""`fieldguide predict --output`: whole files, also after a kill or on a full disk."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from here import fieldguide_here

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
    process = start(project, "-o", "answers.csv")
    rows = project / ".answers.csv.unfinished" / "rows.jsonl"
    while not rows.exists() or rows.read_bytes().count(b"\n") < 64:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    assert (
        "another process"
        in fieldguide_here(
            *("predict", "trip", "-o", "answers.csv", "--resume"), cwd=project
        ).stderr
    )
    process.send_signal(how)
    _, errors = process.communicate()
    assert "Traceback" not in errors
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume goes on" in errors
    answered = rows.read_bytes().count(b"\n")
    assert 64 <= answered < PHOTOS
    assert not (project / "answers.csv").exists()
    with rows.open("ab") as file:  # a kill may come in the middle of a row
        file.write(b'{"photo": "trip/')
    done = fieldguide_here("predict", "trip", "-o", "answers.csv", "--resume", cwd=project)
    assert done.returncode == 1
    assert done.stdout == "answers.csv\n"
    assert "199 of 200 photos classified" in done.stderr
    assert (project / "answers.csv").read_bytes() == whole
    (project / "answers.csv").unlink()
    assert left(project) == []


def test_a_full_disk_leaves_no_file_and_loses_no_answer(project, whole):
    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    process = start(project, "-o", "answers.csv", preexec_fn=full)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "answers.csv: cannot be written (File too large); --resume goes on" in errors
    assert not (project / "answers.csv").exists()
    rows = (project / ".answers.csv.unfinished" / "rows.jsonl").read_bytes()
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
    old = project / "new" / f".some.{kind.upper()}.unfinished" / "rows.jsonl"
    old.parent.mkdir(parents=True)
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
