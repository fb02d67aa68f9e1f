"""The model card, read back as Markdown and as Hugging Face's tools read it."""

from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from trained import CLASSES, PAIRS, RESULTS

from fieldguide.core.errors import RegistryError
from fieldguide.registry.card import BEGIN, CARD, END, escape, write_card
from fieldguide.registry.facts import (
    Archive,
    ClassScores,
    DataCounts,
    Environment,
    Facts,
    TrainScores,
)
from fieldguide.registry.facts import TestScores as Scores  # else pytest takes it for tests
from fieldguide.results.classes import confusion_of
from fieldguide.results.revision import Out

HOSTILE = [
    "<script>alert(1)</script>",
    "a | b",
    "[x](http://evil.example)",
    "![x](y.png)",
    "`code`",
    "**bold** _it_ ~~no~~",
    "&lt;b&gt;",
    "a\n\n# heading",
    "<!-- Your own words: begin -->",
    "$x$ \\ @somebody",
    "http://evil.example www.evil.example",
    "\x1b[2J",
]


@pytest.fixture
def facts():
    return Facts(
        description="A tiny one",
        labels=["insects"],
        archives=[Archive("data/photos.zip", "ab" * 16, 1234, None)],
        data=DataCounts.model_validate(RESULTS["metrics/prepare.json"]),
        params={"data.image_size": 16, "data.resize": "crop", "model.name": "cnn"}
        | {"model.weights": "none", "train.epochs": 3, "train.use_augmentation": True},
        weights=None,
        train=TrainScores.model_validate(RESULTS["metrics/train/metrics.json"]),
        test=Scores.model_validate(RESULTS["metrics/test.json"]["test"]),
        per_class={
            name: ClassScores.model_validate(scores)
            for name, scores in RESULTS["metrics/per_class.json"].items()
        },
        confusion=confusion_of([(true, guess) for true, guess, n in PAIRS for _ in range(n)]),
        environment=Environment.model_validate(RESULTS["metrics/environment.json"]),
        model=Out("models/classifier", "cd" * 16 + ".dir", 7_360_000, 2),
        figures=["plots/figures/confusion.png", "plots/figures/filters_conv1.png"],
    )


def html(card):
    """What GitHub would show, without the header."""
    text = card.split("\n---\n", 1)[1]
    return MarkdownIt("gfm-like", {"linkify": False}).render(text)


def test_each_section_tells_its_facts(facts):
    card = write_card(facts, "v1.2.0", before=None)
    for line in [
        "# Classifier of 3 classes, v1.2.0",
        "| Test accuracy | 83.3 % (95 % interval 66.4 to 92.7 %) |",
        "| Network | cnn, from random weights |",
        "| Files | model.safetensors and model.json, without pickle, 7.4 MB |",
        # Wilson of 6 of 10, by hand: 31.3 to 83.2 %.
        "| bee | 60.0 % | 31.3 to 83.2 % | 85.7 % | 10 |",
        "| bee | ant | 3 of 10 |",
        "data/photos.zip (1,234 bytes, MD5 `" + "ab" * 16 + "`). Photos used: 30 train, 6 val, 30 "
        "test. Left out: 2 unreadable, 1 duplicate.",
        "| crab | 10 | 2 | 10 |",
        "- Every photo becomes 16 × 16 pixels (its centre square), of whatever size it is: ",
        "accuracy are 5.0 points apart",
        "confusion.png, filters_conv1.png.",
        "| train.use_augmentation | true |",
        "Python 3.11.7 on Linux x86_64, cpu; torch 2.15.0.",
    ]:
        assert line in card
    # The weakest class is the first.
    assert card.index("| bee | 60.0 %") < card.index("| ant | 90.0 %") < card.index("| crab | 100")
    assert card == write_card(facts, "v1.2.0", before=None)


def test_hugging_face_reads_the_header(facts):
    data = ModelCard(write_card(facts, "v1.2.0", before=None)).data
    assert data.pipeline_tag == "image-classification"
    assert data.tags == ["insects"]
    accuracy, f1 = data.eval_results
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 0.833333)
    assert (f1.metric_type, f1.metric_value) == ("f1", 0.827)
    assert (accuracy.dataset_name, accuracy.dataset_split) == ("photos.zip", "test")


def test_every_archive_is_named(facts):
    more = replace(facts, archives=[*facts.archives, Archive("data/more.zip", "cd", None, None)])
    card = write_card(more, "v1.2.0", before=None)
    assert "`); data/more.zip (MD5 `cd`). Photos used" in card
    assert ModelCard(card).data.eval_results[0].dataset_name == "photos.zip, more.zip"


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_strangers_stay_text(name, facts):
    scores = dict(zip([name, *CLASSES[1:]], facts.per_class.values(), strict=True))
    counts = dict(zip([name, *CLASSES[1:]], facts.data.classes.values(), strict=True))
    hostile = replace(
        facts,
        description=name,
        per_class=scores,
        data=facts.data.model_copy(update={"classes": counts}),
        confusion=confusion_of([(name, "bee"), ("bee", name)]),
        archives=[Archive(f"data/{name}", "ab", 1, name)],
        figures=[f"plots/figures/{name}.png"],
        params=facts.params | {"data.archive": f"data/{name}"},
    )
    card = write_card(hostile, "v1.2.0", before=None)
    plain, shown = html(write_card(facts, "v1.2.0", before=None)), html(card)
    for markup in ("<script", "<a ", "<img", "<em", "<strong", "<s>", "<h1", "<h2", "<code", "<td"):
        allowed = plain.count(markup) + (3 if markup == "<td" else 0)  # one pair is another
        assert shown.count(markup) <= allowed, markup
    assert "\x1b" not in card
    assert ModelCard(card).data.eval_results[0].metric_value == 0.833333
    # The words of the one card go into the next, whatever the names.
    assert write_card(hostile, "v1.2.0", before=card) == card


def test_escaped_text_reads_as_it_was():
    for name in ("filters_conv1.png", "crab", "a-b c.d", "Ixodes ricinus (L.)"):
        assert escape(name) == name
    for name in HOSTILE[:6]:
        shown = MarkdownIt().renderInline(escape(name))
        text = shown.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"')
        assert text == name


def test_own_words_and_licence_are_kept(facts):
    first = write_card(facts, "v1.0.0", before=None)
    begin, rest = first.split(BEGIN)
    mine = begin.replace("library_name", "license: cc-by-4.0\nlibrary_name") + BEGIN
    mine += "\n\nFor the *garden* only.\n\n" + END + rest.split(END)[1]
    second = write_card(facts, "v1.1.0", before=mine)
    assert f"{BEGIN}\n\nFor the *garden* only.\n\n{END}" in second
    assert ModelCard(second).data.license == "cc-by-4.0"
    assert "v1.1.0" in second
    assert "v1.0.0" not in second


def test_a_card_that_would_be_lost_is_refused(facts):
    card = write_card(facts, "v1.0.0", before=None)
    with pytest.raises(
        RegistryError, match=rf"{CARD}: allowed: one line <!-- .*, below it, one line"
    ):
        write_card(facts, "v1.1.0", before=card.replace(END, ""))
    with pytest.raises(RegistryError, match=rf"{CARD}: found a header that is no YAML"):
        write_card(facts, "v1.1.0", before="---\na: [\n---\n")
    assert write_card(facts, "v1.0.0", before="# A card by hand\n") == card


def test_limits_say_what_the_facts_are(facts):
    classes = {"ant": {"train": 20}, "bee": {"train": 10}, "crab": {"train": 9}}
    never = ClassScores(precision=0.0, recall=0.0, photos=4)
    untested = ClassScores(precision=0.0, recall=0.0, photos=0)
    changed = replace(
        facts,
        data=facts.data.model_copy(update={"classes": classes, "left_out": {"unreadable": 0}}),
        per_class=facts.per_class | {"bee": never, "crab": untested},
        figures=[],
        weights=Archive("models/weights/big.safetensors", "ef", None, "https://example.org/w"),
    )
    card = write_card(changed, "v1.0.0", before=None)
    assert "- Never recognised: bee.\n" in card
    assert "- Without a test photo, so nothing is known of: crab.\n" in card
    assert "- Classes are uneven: 20 training photos of ant, 9 of crab.\n" in card
    assert "Left out: none." in card
    assert "None were drawn." in card
    assert "the weights of models/weights/big.safetensors (MD5 `ef`, imported from https" in card
    even = write_card(facts, "v1.0.0", before=None)
    assert "uneven" not in even
    assert "Never recognised" not in even
