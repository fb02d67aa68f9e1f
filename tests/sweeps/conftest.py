"""A Git repository with made-up experiments."""

import pytest
from synthetic import write_experiments


@pytest.fixture
def repository(tmp_path):
    """Makes a Git repository with experiments: repository(experiments)."""

    def make(experiments, folder="repository"):
        root = tmp_path / folder
        write_experiments(root, experiments)
        return root

    return make
