"""Files and folders appear complete, or not at all; hashes are those of DVC."""

import csv
import json
import os
import subprocess
import sys

import pytest
import yaml

from fieldguide.core.files import folder_md5, new_folder, write_csv, write_json, write_text


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_is_written_as_utf8_with_unix_line_ends_into_a_new_folder(tmp_path):
    write_text(tmp_path / "new" / "deep" / "a.txt", "é\n")
    assert (tmp_path / "new" / "deep" / "a.txt").read_bytes() == b"\xc3\xa9\n"
    assert names_in(tmp_path / "new" / "deep") == ["a.txt"]


def test_a_file_that_cannot_be_written_keeps_the_old_one(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        write_text(tmp_path / "a.txt", "new \udcff")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_json_keeps_order_and_letters(tmp_path):
    value = {"b": [1, 2.5, None, True], "a": "café"}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert list(json.loads(text).items()) == list(value.items())
    assert "café" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_json_refuses_nan_and_infinity(number, tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "a.json", {"x": number})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"x": 1}


def test_csv_cells_are_read_back_unchanged(tmp_path):
    rows = [["a,b", 'say "x"', "two\nlines"], ["", "é", "3"]]
    write_csv(tmp_path / "a.csv", ["one", "two", "three"], rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["one", "two", "three"], *rows]
    assert (tmp_path / "a.csv").read_bytes().startswith(b"one,two,three\n")


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
        assert not (tmp_path / "out").exists()
    assert names_in(tmp_path) == ["out"]
    assert names_in(tmp_path / "out") == ["a"]


def test_a_new_folder_replaces_the_old_one_and_the_rest_of_a_killed_run(tmp_path):
    for name in ("out", ".out.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").touch()
    with new_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert names_in(tmp_path / "out") == ["new"]
    assert names_in(tmp_path) == ["out"]


def test_a_failure_keeps_the_old_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()

    def fail():
        with new_folder(tmp_path / "out") as folder:
            (folder / "half").touch()
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        fail()
    assert names_in(tmp_path) == ["out"]
    assert names_in(tmp_path / "out") == ["old"]


def test_the_hash_of_a_folder_is_the_one_that_dvc_computes(tmp_path):
    """Sorted by path as text: "a-b" and "a.txt" come before "a/b", though the folder is "a"."""
    folder = tmp_path / "photos"
    for name in ("a/b", "a/é/deep.bin", "a-b", "a.txt", "B"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 3)
    for command in (("init", "--no-scm", "--quiet"), ("add", "--quiet", "photos")):
        subprocess.run(
            [sys.executable, "-m", "dvc", *command],
            cwd=tmp_path,
            env={**os.environ, "DVC_NO_ANALYTICS": "1"},
            check=True,
        )
    tracked = yaml.safe_load((tmp_path / "photos.dvc").read_text(encoding="utf-8"))
    assert folder_md5(folder) == tracked["outs"][0]["md5"]
