"""The model card: Markdown with the header that Hugging Face's tools read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from fieldguide.core.errors import RegistryError, printable
from fieldguide.pages import markdown
from fieldguide.results.classes import Interval, wilson
from fieldguide.results.paths import TEST_METRICS, TRAIN_METRICS
from fieldguide.results.results import Results, known, need
from fieldguide.results.storage import without_credentials
from fieldguide.results.versions import ARTIFACT

CARD = "models/MODEL_CARD.md"
BEGIN, END = "<!-- Your own words: begin -->", "<!-- Your own words: end -->"
PLACEHOLDER = (
    "*Licence, intended use in your project, whom to ask: not stated. Every release keeps what "
    "stands between the two comments here, and `license` in the header.*"
)
WEAKEST, CONFUSED, NAMED = 10, 10, 10  # classes, kinds of mistakes, and classes in one sentence
_LICENCE = ("license", "license_name", "license_link")


class SourceFile(NamedTuple):
    """A file that the classifier was made from, as dvc.lock names it."""

    path: str
    md5: str  # of a folder with ".dir" behind it
    size: int | None  # bytes
    source: str | None  # where it was imported from, without credentials


def write_card(
    results: Results, version: str, *, before: str | None, artifact: str = ARTIFACT
) -> str:
    """Return the card.

    Args:
        results: of the commit that is released.
        version: v1.2.0.
        before: the card as it is, whose own words and licence are kept; None without one.
        artifact: the name by which `dvc artifacts get` finds the classifier.

    Raises:
        RegistryError: a score is no share, or the card before has a header that is not YAML or
            only one of the two comments.
        RevisionError: a result is missing.
    """
    confusion, counts = need(results.confusion), need(results.photos)
    if not confusion.photos:
        raise RegistryError(f"plots/confusion.csv of {results.label}: found no photo")
    scores = ("acc", "macro_f1", "top3_acc", "ece")
    test = {name: _share(results, f"test.{name}", TEST_METRICS) for name in scores}
    tested = {one.name: one for one in need(results.classes) if one.photos}
    weakest = sorted(tested.values(), key=lambda one: (one.recall, one.name))[:WEAKEST]
    train_photos = {name: one.train for name, one in counts.items()}
    most, least = (
        {"name": name, "count": train_photos[name]}
        for name in (find(train_photos, key=train_photos.__getitem__) for find in (max, min))
    )
    val_acc = "best.val_acc" in need(results.train_metrics)
    environment = need(results.environment)
    return markdown.render(
        "model_card.md",
        header=_header(results, version, before, test),
        version=version,
        own_words=own_words(before),
        description=_artifact(results).get("desc"),
        artifact=artifact,
        params={key: _as_yaml(value) for key, value in _params(results).items()},
        archives=[_source_file(results, path) for path in results.archives],
        weights=_weights(results),
        model=need(results.model),
        parameters=_number(results, "parameters.all", TRAIN_METRICS),
        test=test,
        intervals={name: results.interval(f"test.{name}") for name in scores},
        photos=confusion.photos,
        val_acc=_share(results, "best.val_acc", TRAIN_METRICS) if val_acc else None,
        totals={
            split: sum(getattr(one, split) for one in counts.values())
            for split in ("train", "val", "test")
        },
        classes=counts,
        left_out=[(why, n) for why, n in need(results.left_out).items() if n],
        tested=tested,
        weakest=weakest,
        mistakes=confusion.mistakes()[:CONFUSED],
        widest=_widest(min(one.photos for one in tested.values())),
        untested=_names([name for name in counts if name not in tested]),
        missed=_names([one.name for one in tested.values() if not one.recall]),
        most=most,
        least=least,
        figures=[PurePosixPath(path).name for path in known(results.figure_paths, [])],
        environment=environment,
        libraries=[
            f"{key.removeprefix('libraries.')} {value}"
            for key, value in environment.items()
            if key.startswith("libraries.")
        ],
    )


def own_words(before: str | None) -> str:
    """Return what a person wrote between the two comments, with them.

    Raises:
        RegistryError: one of the comments is missing, or they are in the wrong order.
    """
    words = PLACEHOLDER
    lines = (before or "").splitlines()  # whole lines: a name in the header may hold anything
    if BEGIN in lines or END in lines:
        counts = (lines.count(BEGIN), lines.count(END))
        if counts != (1, 1) or lines.index(END) < lines.index(BEGIN):
            raise RegistryError(f"{CARD}: allowed: one line {BEGIN} and, below it, one line {END}")
        found = lines[lines.index(BEGIN) + 1 : lines.index(END)]
        words = "\n".join(found).strip() or PLACEHOLDER
    return f"{BEGIN}\n\n{words}\n\n{END}"


def _header(results: Results, version: str, before: str | None, test: dict[str, float]) -> str:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData  # noqa: PLC0415 - a second

    kept = {}
    if before is not None:
        try:
            data = ModelCard(before, ignore_metadata_errors=True).data
        except Exception as err:  # YAML's own and a ValueError
            raise RegistryError(f"{CARD}: found a header that is not YAML ({err})") from err
        kept = {key: value for key in _LICENCE if (value := data.get(key))}
    header = ModelCardData(
        **kept,
        library_name="fieldguide",
        pipeline_tag="image-classification",
        tags=[printable(str(label)) for label in _artifact(results).get("labels", ())],
        metrics=["accuracy", "f1"],
        model_name=f"classifier {version}",
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type="imagefolder",
                dataset_name=printable(", ".join(PurePosixPath(p).name for p in results.archives)),
                dataset_split="test",
                metric_type=kind,
                metric_name=name,
                metric_value=value,
            )
            for kind, name, value in (
                ("accuracy", "Accuracy", test["acc"]),
                ("f1", "Macro F1", test["macro_f1"]),
            )
        ],
    )
    return header.to_yaml().strip()


def _artifact(results: Results) -> dict[str, Any]:
    artifacts = results.revision.read_yaml("dvc.yaml").get("artifacts") or {}
    found = artifacts.get(ARTIFACT)
    if not isinstance(found, dict) or found.get("path") != need(results.model).path:
        raise RegistryError(
            f"dvc.yaml of {results.label}: found artifacts.{ARTIFACT} {found!r}; allowed: one "
            f"whose path is {need(results.model).path}"
        )
    return found


def _params(results: Results) -> dict[str, Any]:
    """Params of the stages that made and tested the classifier."""
    sections = ("data.", "model.", "train.", "evaluate.")
    used = need(results.lock).params
    return {key: value for key, value in used.items() if key.startswith(sections)}


def _number(results: Results, key: str, path: str) -> float:
    found = results.metrics.get(key)
    if isinstance(found, bool) or not isinstance(found, int | float):
        where = f"{path} of {results.label}"
        raise RegistryError(f"{where}: '{key}': found {found!r}; allowed: a number")
    return found


def _share(results: Results, key: str, path: str) -> float:
    found = _number(results, key, path)
    if not 0 <= found <= 1:  # NaN as well
        raise RegistryError(f"{path} of {results.label}: '{key}': found {found}; allowed: 0 to 1")
    return found


def _source_file(results: Results, path: str) -> SourceFile:
    lock = need(results.lock)
    if path not in lock.deps["prepare"] and path not in lock.deps["train"]:
        raise RegistryError(
            f"dvc.lock of {results.label}: {path} is no dep of its stage; run `dvc repro`"
        )
    imported = (results.revision.read_yaml(f"{path}.dvc").get("deps") or [{}])[0]
    source = imported.get("repo", {}).get("url") or imported.get("path")
    found = results.inputs[path]
    return SourceFile(path, found, lock.sizes.get(path), source and without_credentials(source))


def _weights(results: Results) -> SourceFile | None:
    name = str(need(results.lock).params.get("model.weights", "none"))
    path = f"models/weights/{name}"
    if name in ("none", "pretrained") or path not in results.inputs:
        return None
    return _source_file(results, path)


def _widest(photos: int) -> dict[str, float]:
    """The widest interval that a recall may have, in the middle, for so many photos."""
    low, high = wilson(photos // 2, photos) or Interval(0, 1)
    return {"photos": photos, "points": 100 * (high - low)}


def _names(names: Sequence[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest


def _as_yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
