"""Photos in class folders: both of one name arrive, and nothing is overwritten."""

import os
import resource
from pathlib import Path

import pytest

from fieldguide.core.errors import FieldguideError
from fieldguide.inference.class_folders import ClassFolders, folder_names


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["bee", "sea lion", "été", "犬"], ["bee", "sea lion", "été", "犬"]),
        (["a/b", "a_b", "a:b"], ["a_b-2", "a_b", "a_b-3"]),
        (["Cat", "cat", "CAT-2"], ["Cat", "cat-3", "CAT-2"]),
        (["été", "e\u0301te\u0301"], ["été", "e\u0301te\u0301-2"]),  # one name on a Mac
        (["unsure", "Unsure"], ["unsure-2", "Unsure-3"]),
        ([".", "..", "../../etc", ""], ["_", "_._-2", "", ""]),
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
