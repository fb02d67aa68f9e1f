"""What the model card tells, read from a revision and checked: nothing is guessed."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fieldguide.core.errors import RegistryError
from fieldguide.inference.find import FOLDER
from fieldguide.results.classes import Confusion, confusion_of
from fieldguide.results.revision import ARTIFACT, Out, Revision, flat
from fieldguide.results.storage import without_credentials

FIGURES = "plots/figures"
STAGES = ("prepare", "train", "evaluate")  # what makes and tests the classifier
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class TestScores(_Part):
    """metrics/test.json."""

    __test__ = False  # no class of tests, whatever pytest makes of its name

    photos: Annotated[int, Field(ge=1, strict=True)]
    acc: Share
    acc_low: Share  # 95 % interval
    acc_high: Share
    macro_f1: Share
    top3_acc: Share
    ece: Share  # expected calibration error


class ClassScores(_Part):
    """Of one class, in metrics/per_class.json."""

    precision: Share
    recall: Share
    photos: Count


class DataCounts(_Part):
    """metrics/prepare.json."""

    photos: dict[str, Count]  # by split
    left_out: dict[str, Count]  # by reason
    classes: dict[str, dict[str, Count]]  # by class and split


class _Best(_Part):
    val_acc: Share | None = None  # none where all photos were trained on
    epoch: Count


class _Parameters(_Part):
    trained: Count
    all: Count


class TrainScores(_Part):
    """metrics/train/metrics.json."""

    best: _Best
    parameters: _Parameters


class Environment(_Part):
    """metrics/environment.json."""

    python: str
    system: str
    device: str
    libraries: dict[str, str]


class _Test(_Part):
    test: TestScores


class Archive(NamedTuple):
    """One of the photos' archives, as dvc.lock names it."""

    path: str
    md5: str  # of a folder with ".dir" behind it
    size: int | None  # bytes
    source: str | None  # where it was imported from, without credentials


@dataclass(frozen=True)
class Facts:
    """All of one revision."""

    description: str
    labels: list[str]
    archives: list[Archive]
    data: DataCounts
    params: dict[str, Any]  # {"train.epochs": 24, ...}, of the stages that made the classifier
    weights: Archive | None  # what training started from, if it is a file
    train: TrainScores
    test: TestScores
    per_class: dict[str, ClassScores]
    confusion: Confusion
    environment: Environment
    model: Out
    figures: list[str]  # paths


def collect(revision: Revision) -> Facts:
    """Read and check everything.

    Raises:
        RegistryError: a result is missing, no number or not finite.
        RevisionError: a file cannot be read.
    """
    artifact = _artifact(revision)
    outs = revision.outs()
    if FOLDER not in outs:
        raise RegistryError(
            f"dvc.lock of {revision.label}: no {FOLDER}; allowed: after `dvc repro`"
        )
    lock = revision.read_yaml("dvc.lock")["stages"]
    for stage in STAGES:
        if stage not in lock:
            raise RegistryError(
                f"dvc.lock of {revision.label}: no stage {stage}; allowed: after `dvc repro`"
            )
    prepared, trained = lock["prepare"], lock["train"]
    used = [lock[stage].get("params", {}).get("params.yaml", {}) for stage in STAGES]
    params = flat({section: values for part in used for section, values in part.items()})
    archive = params.get("data.archive")
    paths = [str(path) for path in (archive if isinstance(archive, list) else [archive])]
    return Facts(
        description=str(artifact.get("desc", "")),
        labels=[str(label) for label in artifact.get("labels", ())],
        archives=[_archive(revision, prepared, path) for path in paths],
        data=_read(revision, "metrics/prepare.json", DataCounts),
        params=params,
        weights=_weights(revision, trained, str(params.get("model.weights", "none"))),
        train=_read(revision, "metrics/train/metrics.json", TrainScores),
        test=_read(revision, "metrics/test.json", _Test).test,
        per_class=_read(revision, "metrics/per_class.json", dict[str, ClassScores]),
        confusion=_confusion(revision),
        environment=_read(revision, "metrics/environment.json", Environment),
        model=outs[FOLDER],
        figures=sorted(revision.files(FIGURES)) if FIGURES in outs else [],
    )


def _artifact(revision: Revision) -> dict[str, Any]:
    artifact = (revision.read_yaml("dvc.yaml").get("artifacts") or {}).get(ARTIFACT)
    if not isinstance(artifact, dict) or artifact.get("path") != FOLDER:
        raise RegistryError(
            f"dvc.yaml of {revision.label}: found artifacts.{ARTIFACT} {artifact!r}; allowed: one "
            f"whose path is {FOLDER}"
        )
    return artifact


def _read(revision: Revision, path: str, kind: Any) -> Any:
    found = revision.read_json(path)
    if found is None:
        raise RegistryError(
            f"{path} of {revision.label}: missing; allowed: after `dvc repro` and a commit"
        )
    for key, value in flat(found).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RegistryError(
                f"{path} of {revision.label}: found {value} as '{key}'; allowed: finite numbers"
            )
    try:
        return TypeAdapter(kind).validate_python(found)
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(map(str, first["loc"]))
        what = "" if first["type"] == "missing" else f"found {first['input']!r}; "
        raise RegistryError(f"{path} of {revision.label}: '{key}': {what}{first['msg']}") from err


def _dep(stage: dict[str, Any], path: str) -> dict[str, Any] | None:
    return next((dep for dep in stage.get("deps", ()) if dep["path"] == path), None)


def _archive(revision: Revision, stage: dict[str, Any], path: str) -> Archive:
    dep = _dep(stage, path)
    if dep is None:
        raise RegistryError(
            f"dvc.lock of {revision.label}: {path} is no dep of prepare; allowed: after `dvc repro`"
        )
    imported = (revision.read_yaml(f"{path}.dvc").get("deps") or [{}])[0]
    source = imported.get("repo", {}).get("url") or imported.get("path")
    return Archive(path, dep["md5"], dep.get("size"), source and without_credentials(source))


def _weights(revision: Revision, stage: dict[str, Any], name: str) -> Archive | None:
    path = f"models/weights/{name}"
    if name in ("none", "pretrained") or _dep(stage, path) is None:
        return None
    return _archive(revision, stage, path)


def _confusion(revision: Revision) -> Confusion:
    text = revision.read("plots/confusion.csv")
    if text is None:
        raise RegistryError(
            f"plots/confusion.csv of {revision.label}: missing; allowed: after `dvc repro`"
        )
    rows = csv.DictReader(io.StringIO(text.decode(errors="replace"), newline=""))
    try:
        found = [(row["actual"], row["predicted"]) for row in rows]
    except KeyError as err:
        raise RegistryError(
            f"plots/confusion.csv of {revision.label}: no column {err}; allowed: actual, predicted"
        ) from err
    if not found:
        raise RegistryError(
            f"plots/confusion.csv of {revision.label}: found no photo; allowed: one or more"
        )
    return confusion_of(found)
