"""The model card: Markdown with the header that Hugging Face's tools read."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from fieldguide.core.errors import RegistryError, printable
from fieldguide.pages import markdown
from fieldguide.results.dvc import without_credentials
from fieldguide.results.numbers import is_number
from fieldguide.results.paths import CONFUSION, FIGURES, MODEL, TEST_METRICS, TRAIN_METRICS
from fieldguide.results.results import Results, need
from fieldguide.results.versions import ARTIFACT

CARD = "models/MODEL_CARD.md"
BEGIN, END = "<!-- Your own words: begin -->", "<!-- Your own words: end -->"
_PLACEHOLDER = (
    "*Licence, intended use in your project, whom to ask: not stated. Every release keeps the text "
    "between these two comments, and `license` in the header.*"
)
_LICENCE = ("license", "license_name", "license_link")
_SCORES = ("acc", "bal_acc", "macro_f1", "top3_acc", "ece")


class SourceFile(NamedTuple):
    """A file or folder that the classifier was made from, as dvc.lock names it."""

    path: str
    md5: str  # that of a folder ends in .dir
    size: int | None  # bytes
    source: str | None  # where it was imported from, without credentials


def write_card(
    results: Results, version: str, *, before: str | None, artifact: str = ARTIFACT
) -> str:
    """Return the card; the same results give the same bytes.

    Args:
        results: of the commit that is released.
        version: v1.2.0.
        before: the card as it is, whose own words and licence are kept; None without one.
        artifact: the name by which `dvc artifacts get` finds the classifier.

    Raises:
        RegistryError: a score is no number from 0 to 1, or the card before has a header that is not
            YAML or only one of the two comments.
        RevisionError: a result is missing.
    """
    confusion = need(results.confusion)
    if not confusion.photos:
        raise RegistryError(f"{CONFUSION} of {results.label}: found no photo")
    for metrics in (results.test_metrics, results.train_metrics):
        need(metrics)  # its reason says more than a number that is missing
    scores = {name: _share(results, f"test.{name}", TEST_METRICS) for name in _SCORES}
    params = need(results.params)
    # Missing if the validation photos were trained on.
    has_val_acc = "best.val_acc" in need(results.train_metrics)
    classes = need(results.classes)
    recalls = [one.recall_interval for one in classes if one.recall_interval is not None]
    figures = need(results.figure_paths) if FIGURES in results.outputs else []
    return markdown.render(
        "model_card.md",
        version=version,
        artifact=artifact,
        header=_header(results, version, before, scores),
        own_words=_own_words(before),
        description=_artifact(results).get("desc"),
        archives=[_source_file(results, path) for path in results.archives],
        weights=_weights(results),
        model=need(results.model),
        parameters=_number(results, "parameters.all", TRAIN_METRICS),
        scores=scores,
        trust=need(results.trust),
        intervals={name: results.interval(f"test.{name}") for name in (*_SCORES, "coverage")},
        val_acc=_share(results, "best.val_acc", TRAIN_METRICS) if has_val_acc else None,
        photos=need(results.photos),
        left_out=need(results.left_out),
        classes=classes,
        confusion=confusion,
        groups_note=results.groups_note,
        widest_recall=max(high - low for low, high in recalls),
        figures=[PurePosixPath(path).name for path in figures],
        params={
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in params.items()
            if key.startswith(("data.", "model.", "train.", "evaluate."))
        },
        environment=need(results.environment),
    )


def _own_words(before: str | None) -> str:
    """Return what a person wrote between the two comments, with them."""
    words = _PLACEHOLDER
    lines = (before or "").splitlines()  # whole lines: a name in the header may hold anything
    if BEGIN in lines or END in lines:
        counts = (lines.count(BEGIN), lines.count(END))
        if counts != (1, 1) or lines.index(END) < lines.index(BEGIN):
            raise RegistryError(f"{CARD}: allowed: one line {BEGIN} and, below it, one line {END}")
        found = lines[lines.index(BEGIN) + 1 : lines.index(END)]
        words = "\n".join(found).strip() or _PLACEHOLDER
    return f"{BEGIN}\n\n{words}\n\n{END}"


def _header(results: Results, version: str, before: str | None, scores: dict[str, float]) -> str:
    """Return the YAML that Hugging Face's tools read."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData  # noqa: PLC0415 - a second

    kept = {}
    if before is not None:
        try:
            data = ModelCard(before, ignore_metadata_errors=True).data
        except Exception as err:  # YAML's own and a ValueError
            raise RegistryError(f"{CARD}: found a header that is not YAML ({err})") from err
        kept = {key: value for key in _LICENCE if (value := data.get(key))}
    archives = ", ".join(PurePosixPath(path).name for path in results.archives)
    header = ModelCardData(
        **kept,
        library_name="fieldguide",
        pipeline_tag="image-classification",
        tags=[printable(str(label)) for label in _artifact(results).get("labels", ())],
        metrics=["accuracy", "balanced_accuracy", "f1"],
        model_name=f"classifier {version}",
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type="imagefolder",
                dataset_name=printable(archives),
                dataset_split="test",
                metric_type=kind,
                metric_name=name,
                metric_value=value,
            )
            for kind, name, value in (
                ("accuracy", "Accuracy", scores["acc"]),
                ("balanced_accuracy", "Balanced accuracy", scores["bal_acc"]),
                ("f1", "Macro F1", scores["macro_f1"]),
            )
        ],
    )
    return header.to_yaml().strip()


def _artifact(results: Results) -> dict[str, Any]:
    """Return what dvc.yaml says of the classifier."""
    artifacts = results.revision.read_yaml("dvc.yaml").get("artifacts") or {}
    found = artifacts.get(ARTIFACT)
    if not isinstance(found, dict) or found.get("path") != MODEL:
        raise RegistryError(
            f"dvc.yaml of {results.label}: found artifacts.{ARTIFACT} {found!r}; allowed: one "
            f"whose path is {MODEL}"
        )
    return found


def _number(results: Results, key: str, path: str) -> float:
    found = results.metrics.get(key)
    if not is_number(found):
        where = f"{path} of {results.label}"
        raise RegistryError(f"{where}: '{key}': found {found!r}; allowed: a finite number")
    return found


def _share(results: Results, key: str, path: str) -> float:
    found = _number(results, key, path)
    if not 0 <= found <= 1:
        raise RegistryError(f"{path} of {results.label}: '{key}': found {found}; allowed: 0 to 1")
    return found


def _source_file(results: Results, path: str) -> SourceFile:
    if path not in results.inputs:
        raise RegistryError(
            f"dvc.lock of {results.label}: {path} is no dep of a stage; run `dvc repro`"
        )
    imported = (results.revision.read_yaml(f"{path}.dvc").get("deps") or [{}])[0]
    source = imported.get("repo", {}).get("url") or imported.get("path")
    size = need(results.lock).sizes.get(path)
    return SourceFile(path, results.inputs[path], size, source and without_credentials(source))


def _weights(results: Results) -> SourceFile | None:
    """Return the weights that training started from, if they are a file of the project."""
    path = f"models/weights/{need(results.lock).params.get('model.weights')}"
    own = path in results.inputs and not path.endswith(("/none", "/pretrained"))
    return _source_file(results, path) if own else None
