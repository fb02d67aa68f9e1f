"""Folders of `.fieldguide/` are named by what they depend on."""

import pytest

from fieldguide.core.cache import cache_folder


def test_equal_values_give_equal_folders():
    first = cache_folder("kind", {"a": 1, "b": [2.5]}, "x")
    assert first == cache_folder("kind", {"b": [2.5], "a": 1}, "x")
    folders = {
        cache_folder("kind", {"a": 1}),
        cache_folder("kind", {"a": 1.5}),
        cache_folder("kind", {"b": 1}),
        cache_folder("kind", {"a": "1"}),
        cache_folder("kind", {"a": True}),
        cache_folder("kind", {"a": 1}, None),
        cache_folder("other", {"a": 1}),
    }
    assert len(folders) == 7


def test_a_nan_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        cache_folder("kind", {"rate": float("nan")})


def test_the_folder_is_in_the_project_of_an_experiment(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert cache_folder("kind", 1).parent == tmp_path / ".fieldguide/kind"
