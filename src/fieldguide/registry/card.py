"""The model card in Markdown, with the header that Hugging Face's tools read.

Sections after Mitchell et al. 2019, "Model Cards for Model Reporting"
(https://arxiv.org/abs/1810.03993). The same facts give the same bytes: no date, no commit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from fieldguide.core.errors import RegistryError, printable
from fieldguide.registry.facts import Archive, Facts
from fieldguide.results.classes import Interval, Mistake, macro_f1_interval, wilson

CARD = "models/MODEL_CARD.md"
BEGIN, END = "<!-- Your own words: begin -->", "<!-- Your own words: end -->"
PLACEHOLDER = (
    "*Licence, intended use in your project, whom to ask: not stated. What stands between the two "
    "comments here, and `license` in the header, every release keeps.*"
)
WEAKEST, CONFUSED = 10, 10  # rows
SPLITS = ("train", "val", "test")
_LICENCE = ("license", "license_name", "license_link")
# Backslash; what opens code, emphasis, links, HTML, cells, entities, math; and GitHub's bare links.
_SPECIAL = re.compile(r"([\\`*\[\]<>|~&$@]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.)", re.IGNORECASE)


def write_card(facts: Facts, version: str, *, before: str | None) -> str:
    """Return the card.

    Args:
        facts: of the commit that is released.
        version: v1.2.0.
        before: the card as it is, whose own words and licence are kept; None without one.

    Raises:
        RegistryError: the card before has a header that is no YAML, or one comment of the two.
    """
    sections = [
        f"# {escape(_name(facts))}, {escape(version)}",
        _summary(facts),
        own_words(before),
        _results(facts),
        _weak_spots(facts),
        _data(facts),
        _use(facts),
        _limits(facts),
        _figures(facts),
        _params(facts),
        _environment(facts),
    ]
    return _join(f"---\n{_header(facts, version, before)}\n---", *sections) + "\n"


def escape(text: str) -> str:
    """Make a stranger's text plain in Markdown: no markup, link, cell or line of its own."""
    return _SPECIAL.sub(r"\\\1", " ".join(printable(text).split()))


def own_words(before: str | None) -> str:
    """Return what a person wrote between the two comments, with them."""
    words = PLACEHOLDER
    lines = (
        before or ""
    ).splitlines()  # whole ones, because a name in the header may hold anything
    if BEGIN in lines or END in lines:
        if (
            lines.count(BEGIN) != 1
            or lines.count(END) != 1
            or lines.index(END) < lines.index(BEGIN)
        ):
            raise RegistryError(f"{CARD}: allowed: one line {BEGIN} and, below it, one line {END}")
        found = lines[lines.index(BEGIN) + 1 : lines.index(END)]
        words = "\n".join(found).strip() or PLACEHOLDER
    return _join(BEGIN, words, END)


def _name(facts: Facts) -> str:
    return f"Classifier of {len(facts.per_class):,} classes"


def _header(facts: Facts, version: str, before: str | None) -> str:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData  # noqa: PLC0415 - a second

    kept = {}
    if before is not None:
        try:
            data = ModelCard(before, ignore_metadata_errors=True).data
        except Exception as err:  # YAML's own and a ValueError
            raise RegistryError(f"{CARD}: found a header that is no YAML ({err})") from err
        kept = {key: value for key in _LICENCE if (value := data.get(key))}
    names = ", ".join(PurePosixPath(archive.path).name for archive in facts.archives)
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type="imagefolder",
            dataset_name=printable(names),
            dataset_split="test",
            metric_type=kind,
            metric_name=name,
            metric_value=value,
        )
        for kind, name, value in (
            ("accuracy", "Accuracy", facts.test.acc),
            ("f1", "Macro F1", facts.test.macro_f1),
        )
    ]
    header = ModelCardData(
        **kept,
        library_name="fieldguide",
        pipeline_tag="image-classification",
        tags=[printable(label) for label in facts.labels],
        metrics=["accuracy", "f1"],
        model_name=f"classifier {version}",
        eval_results=results,
    )
    return header.to_yaml().strip()


def _summary(facts: Facts) -> str:
    test, params = facts.test, facts.params
    start = "random weights"
    if facts.weights is not None:
        start = f"the weights of {_origin(facts.weights)}"
    elif params["model.weights"] != "none":
        start = "pretrained weights of timm"
    size = "" if facts.model.size is None else f", {facts.model.size / 1e6:,.1f} MB"
    accuracy = f"{_percent(test.acc)} (95 % interval {_interval(test.acc_low, test.acc_high)})"
    rows = [
        ("Test accuracy", accuracy),
        ("Network", f"{escape(str(params['model.name']))}, from {start}"),
        ("Parameters", f"{facts.train.parameters.all:,}"),
        ("Files", f"model.safetensors and model.json, without pickle{size}"),
        ("DVC's hash", f"`{facts.model.md5}`"),
    ]
    described = f"{escape(facts.description)}. " if facts.description else ""
    return _join(
        f"{described}`fieldguide release` wrote this card from what its commit holds.",
        _table(("", ""), rows),
    )


def _results(facts: Facts) -> str:
    test = facts.test
    macro_f1 = macro_f1_interval(facts.confusion)
    assert macro_f1 is not None  # facts hold one photo or more
    rows = [
        ("Accuracy", _percent(test.acc), _interval(test.acc_low, test.acc_high)),
        ("Among the first three", _percent(test.top3_acc), _wilson(test.top3_acc, test.photos)),
        ("Macro F1", f"{test.macro_f1:.3f}", f"{macro_f1.low:.3f} to {macro_f1.high:.3f}"),
        ("Expected calibration error (ECE)", f"{test.ece:.3f}", "–"),
    ]
    return _join(
        "## Results",
        f"On {test.photos:,} test photos, by which nothing was chosen:",
        _table(("metric", "value", "95 % interval"), rows),
        "Intervals are Wilson's, of macro F1 a bootstrap's, and speak of other test photos of the "
        "same kind; another seed of the training would widen them. ECE has none, because "
        "resampling inflates it. " + _how_chosen(facts),
    )


def _how_chosen(facts: Facts) -> str:
    val, score = f"{facts.data.photos.get('val', 0):,}", facts.train.best.val_acc
    if score is None:
        return f"The {val} photos held out for validation were trained on; the last epoch is kept."
    return (
        f"The epoch was chosen by {val} other photos, of which {_percent(score)} are right: for "
        "that reason an optimistic figure."
    )


def _weak_spots(facts: Facts) -> str:
    tested = [(name, scores) for name, scores in facts.per_class.items() if scores.photos]
    tested.sort(key=lambda one: (one[1].recall, one[0]))
    rest = f", of {len(tested):,}" if len(tested) > WEAKEST else ""
    weakest = [
        (
            escape(name),
            _percent(scores.recall),
            _wilson(scores.recall, scores.photos),
            _percent(scores.precision),
            f"{scores.photos:,}",
        )
        for name, scores in tested[:WEAKEST]
    ]
    columns = ("class", "recall", "95 % interval of recall", "precision", "test photos")
    parts = [f"The classes of lowest recall{rest}:", _table(columns, weakest)]
    if mistakes := facts.confusion.mistakes()[:CONFUSED]:
        confused = [(escape(m.actual), escape(m.predicted), _of_class(facts, m)) for m in mistakes]
        parts += ["The most frequent mistakes:", _table(("of", "taken for", "photos"), confused)]
    return _join("## Weak spots", *parts)


def _data(facts: Facts) -> str:
    data = facts.data
    reasons = ", ".join(f"{n:,} {_plain(why)}" for why, n in data.left_out.items() if n)
    used = ", ".join(f"{data.photos.get(split, 0):,} {split}" for split in SPLITS)
    rows = [
        (escape(name), *(f"{counts.get(split, 0):,}" for split in SPLITS))
        for name, counts in data.classes.items()
    ]
    origins = "; ".join(map(_origin, facts.archives))
    return _join(
        "## Data",
        f"{origins}. Photos used: {used}. Left out: {reasons or 'none'}.",
        _table(("class", *SPLITS), rows),
    )


def _use(facts: Facts) -> str:
    return _join(
        "## Use it",
        "In a clone of this repository, with fieldguide; the files come from the DVC remote:",
        "    fieldguide predict --model VERSION photo.jpg",
        "With DVC alone, from the repository's URL; and from Python:",
        "    dvc artifacts get URL classifier --rev VERSION --out classifier",
        "```python\nimport fieldguide\n\n"
        'fieldguide.load("classifier").predict("photo.jpg").label\n```',
        "Instead of a version, `predict` takes a stage, such as prod, and `dvc` takes "
        "`--stage prod`.",
        f"Meant for saying which of {len(facts.per_class):,} classes a photo shows, where photos "
        "are like those of the data and somebody can bear the mistakes listed under weak spots.",
    )


def _limits(facts: Facts) -> str:
    test, params = facts.test, facts.params
    size = params["data.image_size"]
    how = "its centre square" if params["data.resize"] == "crop" else "the whole, its shape lost"
    same = (
        f"Every photo gets one of the {len(facts.per_class):,} classes, also one of nothing known."
    )
    small = (
        f"Every photo becomes {size} × {size} pixels ({how}), of whatever size it is: what cannot "
        "be seen at that size is not seen."
    )
    narrow = (
        "Test and training photos are from the same source. Other cameras, places and times were "
        "not tested."
    )
    noisy = (
        f"{test.photos:,} test photos leave the accuracy open from {_percent(test.acc_low)} to "
        f"{_percent(test.acc_high)}{_widest(facts)}."
    )
    confident = (
        "Probabilities are the network's own, none were calibrated afterwards: confidence and "
        f"accuracy are {100 * test.ece:.1f} points apart on average (ECE)."
    )
    lines = [same, small, narrow, noisy, confident]
    if untested := [name for name, scores in facts.per_class.items() if not scores.photos]:
        lines.append(f"Without a test photo, so nothing is known of: {_list(untested)}.")
    if missed := [
        n for n, scores in facts.per_class.items() if scores.photos and not scores.recall
    ]:
        lines.append(f"Never recognised: {_list(missed)}.")
    counts = {name: split.get("train", 0) for name, split in facts.data.classes.items()}
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[most] >= 2 * counts[least]:
        lines.append(
            f"Classes are uneven: {counts[most]:,} training photos of {escape(most)}, "
            f"{counts[least]:,} of {escape(least)}."
        )
    return _join("## Limits", "\n".join(f"- {line}" for line in lines))


def _figures(facts: Facts) -> str:
    if not facts.figures:
        return _join("## Figures", "None were drawn.")
    names = ", ".join(escape(PurePosixPath(path).name) for path in facts.figures)
    return _join(
        "## Figures",
        "DVC has them, not Git. `fieldguide report --rev VERSION` puts them on one page, and "
        f"`dvc pull plots/figures` brings those of the commit that is checked out: {names}.",
    )


def _params(facts: Facts) -> str:
    rows = [(escape(key), escape(_value(value))) for key, value in facts.params.items()]
    return _join("## Params", _table(("param", "value"), rows))


def _environment(facts: Facts) -> str:
    made = facts.environment
    libraries = ", ".join(f"{escape(name)} {escape(v)}" for name, v in made.libraries.items())
    return _join(
        "## Made with",
        f"Python {escape(made.python)} on {escape(made.system)}, {escape(made.device)}; "
        f"{libraries}.",
    )


def _origin(archive: Archive) -> str:
    size = "" if archive.size is None else f"{archive.size:,} bytes, "
    source = f", imported from {escape(archive.source)}" if archive.source else ""
    return f"{escape(archive.path)} ({size}MD5 `{archive.md5}`{source})"


def _widest(facts: Facts) -> str:
    few = min((scores.photos for scores in facts.per_class.values() if scores.photos), default=0)
    if not few:
        return ""
    low, high = wilson(few // 2, few) or Interval(0, 1)  # widest in the middle
    return f", and {few:,} of one class its recall by up to {100 * (high - low):.0f} points"


def _of_class(facts: Facts, mistake: Mistake) -> str:
    scores = facts.per_class.get(mistake.actual)
    return f"{mistake.photos:,}" + (f" of {scores.photos:,}" if scores else "")


def _list(names: Sequence[str], most: int = 10) -> str:
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(escape(name) for name in names[:most]) + rest


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(reason: str) -> str:
    return escape(reason.replace("_", " "))


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _wilson(share: float, photos: int) -> str:
    return _interval(*(wilson(round(share * photos), photos) or Interval(0, 1)))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _join(*parts: str) -> str:
    return "\n\n".join(parts)
