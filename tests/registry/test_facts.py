"""What the card is made of, read from files as they lie in a folder."""

import json

import pytest
import yaml
from trained import ARTIFACTS, PARAMS, RESULTS, Project, write_results

from fieldguide.core.errors import RegistryError
from fieldguide.registry.facts import Archive, collect
from fieldguide.results.revision import WORKSPACE, Revision

LOCK = {
    "prepare": {
        "deps": [{"path": "data/photos.zip", "md5": "ab", "size": 6}],
        "params": {"params.yaml": {"data": PARAMS["data"]}},
    },
    "train": {
        "deps": [{"path": "models/weights/big.safetensors", "md5": "cd", "size": 9}],
        "params": {"params.yaml": {"model": PARAMS["model"], "train": PARAMS["train"]}},
        "outs": [{"path": "models/classifier", "md5": "ef.dir", "size": 3, "nfiles": 2}],
    },
    "evaluate": {"params": {"params.yaml": {"evaluate": PARAMS["evaluate"]}}},
}


@pytest.fixture
def files(tmp_path):
    """The results, without Git and DVC."""
    project = Project(tmp_path)
    write_results(project)
    project.write("dvc.yaml", yaml.safe_dump({"artifacts": ARTIFACTS}))
    project.write("dvc.lock", yaml.safe_dump({"stages": LOCK}))
    return project


def found(files):
    return collect(Revision(files.folder, WORKSPACE, None))


def test_everything_is_there(files):
    facts = found(files)
    assert facts.archives == [Archive("data/photos.zip", "ab", 6, None)]
    assert facts.test.photos == 30
    assert facts.per_class["bee"].recall == 0.6
    assert facts.confusion.counts.tolist() == [[9, 1, 0], [3, 6, 1], [0, 0, 10]]
    assert facts.params["train.epochs"] == 3
    assert facts.train.best.val_acc == 0.875
    assert facts.weights is None
    assert facts.figures == []


def test_a_source_is_named_without_its_credentials(files):
    url = "https://me:secret@example.org/photos.zip?signature=secret#secret"
    files.write("data/photos.zip.dvc", yaml.safe_dump({"deps": [{"path": url}]}))
    assert found(files).archives[0].source == "https://example.org/photos.zip"
    imported = {"path": "data/photos.zip", "repo": {"url": "git@example.org:a/b.git"}}
    files.write("data/photos.zip.dvc", yaml.safe_dump({"deps": [imported]}))
    assert found(files).archives[0].source == "git@example.org:a/b.git"


def test_every_archive_of_a_list_is_there(files):
    paths = ["data/photos.zip", "data/more.zip"]
    lock = json.loads(json.dumps(LOCK))
    lock["prepare"]["deps"].append({"path": "data/more.zip", "md5": "ef", "size": 7})
    lock["prepare"]["params"]["params.yaml"]["data"]["archive"] = paths
    files.write("dvc.lock", yaml.safe_dump({"stages": lock}))
    assert found(files).archives == [
        Archive("data/photos.zip", "ab", 6, None),
        Archive("data/more.zip", "ef", 7, None),
    ]


def test_weights_that_training_started_from(files):
    changed = {
        **LOCK["train"],
        "params": {"params.yaml": {"model": {"weights": "big.safetensors"}}},
    }
    files.write("dvc.lock", yaml.safe_dump({"stages": {**LOCK, "train": changed}}))
    assert found(files).weights == Archive("models/weights/big.safetensors", "cd", 9, None)


@pytest.mark.parametrize("name", [*RESULTS, "plots/confusion.csv"])
def test_a_missing_result_is_named(name, files):
    (files.folder / name).unlink()
    with pytest.raises(RegistryError, match=rf"^{name} of workspace: missing; allowed: after `dvc"):
        found(files)


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("metrics/test.json", "acc", float("nan"), r"found nan as 'test\.acc'; allowed: finite"),
        ("metrics/test.json", "acc_low", "nan", r"'test\.acc_low': found 'nan'; Input should be a"),
        ("metrics/test.json", "acc", True, r"'test\.acc': found True; Input should be a valid nu"),
        ("metrics/test.json", "ece", 1.5, r"'test\.ece': found 1\.5; Input should be less than"),
        ("metrics/test.json", "ece", None, r"'test\.ece': found None; Input should be a valid num"),
        ("metrics/test.json", "photos", 0, r"'test\.photos': found 0; Input should be greater"),
        ("metrics/train/metrics.json", "loss", float("inf"), r"found inf as 'train\.loss'; allow"),
        ("metrics/per_class.json", "recall", "0.9", r"'ant\.recall': found '0\.9'; Input should"),
    ],
)
def test_a_result_that_is_no_finite_number_is_named(name, key, value, message, files):
    content = json.loads((files.folder / name).read_text())
    next(iter(content.values()))[key] = value
    files.write(name, content)
    with pytest.raises(RegistryError, match=message):
        found(files)


def test_what_dvc_does_not_declare_or_has_not_made(files):
    files.write("plots/confusion.csv", "a,b\n1,2\n")
    with pytest.raises(RegistryError, match=r"confusion\.csv .* no column 'actual'; allowed: act"):
        found(files)
    files.write("plots/confusion.csv", "actual,predicted\n")
    with pytest.raises(RegistryError, match=r"confusion\.csv .* found no photo; allowed: one or m"):
        found(files)
    files.write("dvc.lock", yaml.safe_dump({"stages": {"train": LOCK["train"]}}))
    with pytest.raises(RegistryError, match=r"dvc\.lock of workspace: no stage prepare; allowed"):
        found(files)
    files.write("dvc.lock", yaml.safe_dump({"stages": {}}))
    with pytest.raises(RegistryError, match=r"dvc\.lock of workspace: no models/classifier; allo"):
        found(files)
    files.write("dvc.yaml", yaml.safe_dump({"artifacts": {"classifier": {"path": "models/other"}}}))
    with pytest.raises(RegistryError, match=r"dvc\.yaml of .*: found artifacts\.classifier {'pa"):
        found(files)
    files.write("dvc.yaml", "artifacts:\n")
    with pytest.raises(RegistryError, match=r"found artifacts\.classifier None; allowed"):
        found(files)
