"""The description of what a result was made with."""

import json
import platform

import numpy as np
import pytest
import torch

from fieldguide.core.environment import describe_environment, describe_machine, versions

CPU = torch.device("cpu")


def test_description_names_versions_and_hardware():
    found = describe_environment(CPU, portable=False)
    assert found["libraries"]["numpy"] == np.__version__
    assert set(found["libraries"]) == {
        *("torch", "torchvision", "numpy", "timm", "pillow", "scikit-learn", "matplotlib")
    }
    assert found["threads"] == torch.get_num_threads()
    assert found["device"].startswith("cpu: ")
    assert found["cuda"] is None
    assert found == {"portable": False, **describe_machine(CPU), "libraries": versions()}


def test_a_portable_result_depends_on_no_machine():
    assert describe_environment(CPU, portable=True) == {
        "portable": True,
        "threads": torch.get_num_threads(),
        "libraries": versions(),
    }


@pytest.mark.parametrize("portable", [True, False])
def test_description_is_json_without_paths_and_without_the_machines_name(portable, tmp_path):
    text = json.dumps(describe_environment(CPU, portable=portable), allow_nan=False)
    for private in (str(tmp_path), platform.node(), "/home", "/tmp"):
        assert private not in text
