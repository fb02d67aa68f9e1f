"""The description of what a result was made with."""

import hashlib
import json
import platform

import numpy as np
import torch

from fieldguide.core.environment import (
    LIBRARIES,
    describe_environment,
    numeric_versions,
)

CPU = torch.device("cpu")


def test_description_names_versions_and_hardware(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_bytes(b"torch==1\n")
    found = describe_environment(CPU, lock)
    assert found["python"] == platform.python_version()
    assert found["libraries"]["numpy"] == np.__version__
    assert set(found["libraries"]) == set(LIBRARIES)
    assert found["threads"] == torch.get_num_threads()
    assert found["device"].startswith("cpu: ")
    assert found["cuda"] is None
    assert found["lock_sha256"] == hashlib.sha256(b"torch==1\n").hexdigest()


def test_description_is_json_and_always_the_same(tmp_path):
    first = json.dumps(describe_environment(CPU), allow_nan=False)
    assert first == json.dumps(describe_environment(CPU), allow_nan=False)


def test_description_has_no_paths_and_no_machine_name(tmp_path):
    text = json.dumps(describe_environment(CPU))
    for private in (str(tmp_path), platform.node(), "/home", "/tmp"):
        assert private not in text


def test_without_a_lock_file_its_hash_is_none(tmp_path):
    assert describe_environment(CPU, tmp_path / "none")["lock_sha256"] is None


def test_versions_of_libraries_that_compute_nothing_do_not_count():
    versions = numeric_versions()
    assert versions["python"] == platform.python_version()
    assert versions["numpy"] == np.__version__
    assert set(versions) == {"python", "torch", "torchvision", "numpy", "timm"}
