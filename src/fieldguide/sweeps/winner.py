"""Bring the winner of a sweep into params.yaml, so that `dvc repro` restores its training."""

from __future__ import annotations

import io
from pathlib import Path

from ruamel.yaml import YAML

from fieldguide.core.errors import SweepError
from fieldguide.core.files import write_text
from fieldguide.results.dvc import cache_folder, cached_file
from fieldguide.results.git import read_blobs
from fieldguide.results.paths import MODEL
from fieldguide.results.revision import load_yaml
from fieldguide.sweeps.experiments import experiments_of
from fieldguide.sweeps.space import SECTIONS
from fieldguide.sweeps.worker import TARGET


class Winner:
    """The experiment of a sweep that is applied."""

    def __init__(self, root: Path, baseline: str, name: str) -> None:
        """Read it from Git.

        Args:
            root: the project.
            baseline: of the sweep.
            name: of the experiment.

        Raises:
            SweepError: it is not in this repository.
        """
        commit = experiments_of(root, baseline).get(name)
        if commit is None:
            raise SweepError(
                f"{name}: this experiment is not in the repository; `dvc exp pull REMOTE {name}` "
                "gets it, and `fieldguide sweep run` trains it again"
            )
        params, lock = read_blobs(
            root, [f"{commit}:./{file}" for file in ("params.yaml", "dvc.lock")]
        )
        self._root, self.name = root, name
        self._params = load_yaml(params or b"")
        self._model = _model_in(lock)

    def apply(self) -> list[str]:
        """Set the params that it was trained with in params.yaml; nothing else changes.

        Returns:
            A line for each change.

        Raises:
            SweepError: params.yaml lacks one of the keys.
        """
        path, yaml = self._root / "params.yaml", YAML()
        yaml.preserve_quotes, yaml.width = True, 10_000
        params = yaml.load(path.read_text(encoding="utf-8"))
        lines = []
        for section in SECTIONS:
            for key, value in self._params[section].items():
                if key not in params[section]:
                    raise SweepError(
                        f"params.yaml: {section}.{key}: missing; {self.name} was trained with "
                        f"{value}, by the code of another commit"
                    )
                if params[section][key] != value:
                    lines.append(f"{section}.{key}: {params[section][key]} -> {value}")
                    params[section][key] = value
        text = io.StringIO()
        yaml.dump(params, text)
        write_text(path, text.getvalue())
        return lines

    @property
    def is_cached(self) -> bool:
        """Whether DVC's cache has its model; that of a cluster's node is on the remote."""
        return bool(self._model) and cached_file(cache_folder(self._root), self._model).is_file()

    @property
    def is_in_workspace(self) -> bool:
        """Whether the model in the workspace is its model, by dvc.lock."""
        lock = self._root / "dvc.lock"
        return lock.is_file() and _model_in(lock.read_bytes()) == self._model


def _model_in(lock: bytes | None) -> str:
    """Return the hash of the model that a dvc.lock names; "" if there is none."""
    outs = load_yaml(lock or b"{}").get("stages", {}).get(TARGET, {}).get("outs", [])
    return next((out["md5"] for out in outs if out["path"] == MODEL), "")
