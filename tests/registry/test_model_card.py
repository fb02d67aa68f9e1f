"""The model card, read back as Markdown and as Hugging Face's tools read it."""

import copy

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from trained import ARTIFACTS, PARAMS, TRUST, write_inputs, write_lock, write_results

from fieldguide.core.errors import RegistryError, RevisionError
from fieldguide.registry.model_card import BEGIN, CARD, END, write_card
from fieldguide.results.results import Results
from fieldguide.results.revision import WORKSPACE, Revision

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
    "---",
]


class Folder:
    """The results in a folder, without Git and DVC."""

    def __init__(self, folder):
        self.folder = folder
        self.params = copy.deepcopy(PARAMS)
        self.artifacts = copy.deepcopy(ARTIFACTS)
        self.results = {}

    def card(self, version="v1.2.0", *, before=None):
        write_inputs(self.folder, params=self.params, artifacts=self.artifacts)
        write_results(self.folder, **self.results)
        write_lock(self.folder, self.params)
        return write_card(Results(self.revision), version, before=before)

    @property
    def revision(self):
        return Revision(self.folder, WORKSPACE, None)


@pytest.fixture
def made(tmp_path):
    return Folder(tmp_path)


def html(card):
    """What GitHub would show, without the header."""
    text = card.split("\n---\n", 1)[1]
    return MarkdownIt("gfm-like", {"linkify": False}).render(text)


def test_each_section_tells_its_facts(made):
    card = made.card()
    for line in [
        "# Classifier of 3 classes, v1.2.0",
        "A tiny one. `fieldguide release` wrote",
        "| Test accuracy | 83.3% (95 % interval 66.4% to 92.7%) |",
        "| Balanced accuracy | 83.3% (95 % interval ",
        "| Network | cnn, from random weights |",
        "| Files | model.safetensors and model.json, without pickle, 7.4 MB |",
        "by accuracy on 6 other photos, of which 87.5% are classified correctly.",
        # The bootstrap of the mean recall depends on the draw: tests/results/test_classes.py.
        "| Balanced accuracy (mean recall of the classes) | 83.3% | ",
        # Wilson of 6 of 10, by hand: 31.3 % to 83.2 %.
        "| bee | 60.0% | 31.3% to 83.2% | 85.7% | 10 |",
        "| bee | ant | 3 of 10 |",
        # MD5 of "photos", by md5sum.
        "data/photos.zip (6 bytes, MD5 `d68f0b43acf6d58599009d506a6f9c78`). Photos used: 30 train,",
        "6 val, 30 test. Left out: 2 unreadable, 1 duplicate.",
        "| crab | 10 | 2 | 10 |",
        "    dvc artifacts get URL classifier --rev VERSION --out classifier",
        "- Every photo is reduced to 16 × 16 pixels (its centre square).",
        "- 30 test photos leave the accuracy uncertain, from 66.4% to 92.7%, and the recall of",
        "single classes, by up to 52 points.",  # of bee
        "accuracy are 5.0 points apart",
        # Wilson of 20 of 30, and of 19 of 20, by hand.
        '| Coverage: photos that are not "unsure" | 66.7% | 48.8% to 80.8% |',
        "| Right among them | 95.0% | 76.4% to 99.1% |",
        "66.7% of photos can be taken as they come: 95.0% of them are right (95 % interval 76.4%",
        "a temperature of 1.5 changed the ECE on the test photos from 0.125 to 0.050, and the",
        "    fieldguide predict --model VERSION --min-confidence auto photo.jpg",
        "None were drawn.",
        "| train.use_augmentation | true |",
        "Linux x86_64, cpu; torch 2.15.0.",
    ]:
        assert line in card
    # The weakest class is the first.
    assert card.index("| bee | 60.0%") < card.index("| ant | 90.0%") < card.index("| crab | 100")
    assert card == made.card()


def test_a_classifier_without_calibration_says_so(made):
    none = dict.fromkeys(("temperature", "target_precision", "min_confidence"))
    made.results = {"trust": TRUST | none | {"accepted": 0, "right": 0}, "coverage": 0.0}
    card = made.card()
    assert "because no validation photos were left to calibrate them. Confidence and" in card
    assert "\nNot calibrated, because the validation photos were trained on.\n" in card
    assert '| Coverage: photos that are not "unsure" | 0.0% | – |' in card
    assert "Right among them" not in card
    assert "    fieldguide predict --model VERSION photo.jpg\n" in card


def test_blocks_are_separate_and_no_empty_line_is_doubled(made):
    card = made.card()
    assert "\n\n\n" not in card
    shown = html(card)
    assert shown.count("<table>") == 6
    assert shown.count("<h2>") == 8
    assert shown.count("<pre>") == 3
    assert "|" not in shown  # of a table that is none


def test_hugging_face_reads_the_header(made):
    data = ModelCard(made.card()).data
    assert data.pipeline_tag == "image-classification"
    assert data.tags == ["insects"]
    accuracy, balanced, f1 = data.eval_results
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 0.833333)
    assert (balanced.metric_type, balanced.metric_value) == ("balanced_accuracy", 0.833333)
    assert (f1.metric_type, f1.metric_value) == ("f1", 0.827)
    assert (accuracy.dataset_name, accuracy.dataset_split) == ("photos.zip", "test")


def test_every_archive_is_named(made):
    made.params["data"]["archive"] = ["data/photos.zip", "data/more.zip"]
    card = made.card()
    assert "`); data/more.zip (6 bytes, MD5 `" in card
    assert ModelCard(card).data.eval_results[0].dataset_name == "photos.zip, more.zip"


def test_an_imported_file_is_named_without_the_credentials_of_its_source(made):
    def imported(**deps):
        (made.folder / "data/photos.zip.dvc").write_text(yaml.safe_dump({"deps": [deps]}))
        return made.card()

    made.card()
    url = "https://me:secret@example.org/photos.zip?signature=secret#secret"
    card = imported(path=url)
    assert "imported from https:\u200b//example.org/photos.zip)" in card
    assert "secret" not in card
    card = imported(path="data/photos.zip", repo={"url": "git@example.org:a/b.git"})
    assert "imported from git@\u200bexample.org:a/b.git)" in card


def test_weights_that_training_started_from(made):
    made.params["model"]["weights"] = "pretrained"
    (made.folder / "models/weights").mkdir(parents=True)
    (made.folder / "models/weights/pretrained").write_text("none either")
    assert "| Network | cnn, from pretrained weights of timm |" in made.card()
    made.params["model"]["weights"] = "big.safetensors"
    (made.folder / "models/weights/big.safetensors").write_text("big")
    assert "from the weights of models/weights/big.safetensors (3 bytes, MD5 `" in made.card()


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_strangers_stays_text(text, made):
    plain = html(made.card())
    name = text.replace("/", "∕").replace("\n", " ").replace("\x1b", "?")  # of a file
    made.params["data"]["archive"] = f"data/{name}"
    made.params["train"]["note"] = text
    made.artifacts["classifier"] |= {"desc": text, "labels": [text]}
    made.results = {"classes": [text, "bee", "crab"], "libraries": [(text, text)]}
    card = made.card()
    shown = html(card)
    for markup in (
        "<script",
        "<a ",
        "<img",
        "<em",
        "<strong",
        "<s>",
        "<h1",
        "<h2",
        "<code",
        "<!--",
    ):
        assert shown.count(markup) == plain.count(markup), markup
    assert shown.count("<td") == plain.count("<td") + 2  # one more param
    assert "\x1b" not in card
    assert ModelCard(card).data.eval_results[0].metric_value == 0.833333
    # The words of one card go into the next, whatever the names.
    assert made.card(before=card) == card


def test_own_words_and_licence_are_kept(made):
    begin, rest = made.card("v1.0.0").split(BEGIN)
    mine = begin.replace("library_name", "license: cc-by-4.0\nlibrary_name") + BEGIN
    mine += "\n\nFor the *garden* only.\n\n" + END + rest.split(END)[1]
    second = made.card("v1.1.0", before=mine)
    assert f"{BEGIN}\n\nFor the *garden* only.\n\n{END}" in second
    assert ModelCard(second).data.license == "cc-by-4.0"
    assert "v1.1.0" in second
    assert "v1.0.0" not in second
    assert made.card(before="# A card by hand\n") == made.card()


def test_a_card_whose_words_would_be_lost_is_refused(made):
    card = made.card()
    with pytest.raises(
        RegistryError, match=rf"{CARD}: allowed: one line <!-- .*, below it, one line"
    ):
        made.card(before=card.replace(END, ""))
    with pytest.raises(RegistryError, match=rf"{CARD}: found a header that is not YAML"):
        made.card(before="---\na: [\n---\n")


@pytest.mark.parametrize(
    ("monitor", "name"),
    [("val/acc", "accuracy"), ("val/macro_f1", "macro F1"), ("val/loss", "loss")],
)
def test_what_chose_the_epoch_is_told(monitor, name, made):
    made.params["train"]["monitor"] = monitor
    chosen = f"The epoch was chosen by {name} on 6 other photos, of which 87.5% are classified"
    assert chosen in made.card()


def test_limits_follow_from_the_results(made):
    even = made.card()
    for limit in ("uneven", "never recognised", "no test photo", "not independent"):
        assert limit not in even
    write_results(made.folder)
    table = made.folder / "plots/classes.csv"
    text = table.read_text().replace("ant,train,10", "ant,train,20")
    table.write_text(text.replace("test,10,10", "test,10,2"))
    pairs = "actual,predicted\n" + "bee,ant\n" * 4 + "ant,ant\n" * 4
    (made.folder / "plots/confusion.csv").write_text(pairs)
    write_lock(made.folder)
    card = write_card(Results(made.revision), "v1.0.0", before=None)
    assert "- These classes were never recognised: bee.\n" in card
    assert "- These classes have no test photo, so nothing is known of them: crab.\n" in card
    assert "- The 30 test photos are 6 groups: photos of one group are not independent" in card
    assert "- Classes are uneven: 20 training photos of ant, 10 of bee.\n" in card
    assert "\n\n\n" not in card


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, r"'test\.acc': found 1\.5; allowed: 0 to 1"),
        (float("nan"), r"'test\.acc': found nan; allowed: a finite number"),
        (None, r"'test\.acc': found None; allowed: a finite number"),
        (True, r"'test\.acc': found True; allowed: a finite number"),
        ("0.9", r"'test\.acc': found '0\.9'; allowed: a finite number"),
    ],
)
def test_a_score_that_is_no_share_is_named(value, message, made):
    made.results = {"acc": value}
    with pytest.raises(RegistryError, match=rf"metrics/test\.json of workspace: {message}"):
        made.card()


def test_what_is_missing_is_named(made):
    made.card()
    (made.folder / "plots/per_class.csv").write_text("class\n")
    with pytest.raises(RevisionError, match=r"plots/per_class\.csv of workspace: not the file"):
        write_card(Results(made.revision), "v1.0.0", before=None)
    made.artifacts = {}
    with pytest.raises(
        RegistryError, match=r"found artifacts\.classifier None; allowed: one whose"
    ):
        made.card()
