"""`auto` becomes the value that fits what is trained; what was asked for is kept."""

import re

import pytest
import yaml

from fieldguide.core.errors import ParamsError
from fieldguide.core.params import Params, load_params
from fieldguide.core.recipes import (
    FINE_TUNING,
    FINE_TUNING_CNN,
    HEAD,
    SCRATCH,
    describe_auto,
    parse_auto,
)

PRETRAINED = {"name": "test_resnet", "weights": "pretrained"}


@pytest.fixture
def raw_params(make_params):
    """Returns all params with some changed, as a file has them: raw_params(model={...})."""

    def make(**changes):
        raw = make_params().asked
        raw["train"] |= dict.fromkeys(SCRATCH, "auto")
        for section, values in changes.items():
            raw[section] |= values
        return raw

    return make


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        ({}, SCRATCH),
        ({"name": "test_resnet"}, SCRATCH),
        (PRETRAINED, FINE_TUNING),
        ({"weights": "birds"}, FINE_TUNING_CNN),  # an earlier classifier
        (PRETRAINED | {"finetune": "last_k"}, FINE_TUNING),
        (PRETRAINED | {"finetune": "head"}, HEAD),
    ],
)
def test_auto_is_the_recipe_for_what_is_trained(model, recipe, raw_params):
    params = Params.model_validate(raw_params(model=model))
    found = params.train.model_dump()
    assert {key: found[key] for key in recipe} == recipe
    assert params.auto_values == recipe


def test_a_value_that_is_given_counts_and_the_others_stay_auto(raw_params):
    raw = raw_params(train={"epochs": 3}, model=PRETRAINED)
    params = Params.model_validate(raw)
    assert params.train.epochs == 3
    assert params.train.learning_rate == FINE_TUNING["learning_rate"]
    assert "epochs" not in params.auto_values
    assert "learning_rate" in params.auto_values
    assert params.asked == raw
    params.asked["train"]["epochs"] = 4  # a copy
    assert params.asked == raw


def test_every_recipe_decides_the_same_keys():
    for recipe in (HEAD, FINE_TUNING, FINE_TUNING_CNN):
        assert recipe.keys() == SCRATCH.keys()


def test_the_error_of_a_wrong_value_says_that_auto_is_allowed(raw_params, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw_params(train={"epochs": "many", "batch_size": "auto"})))
    with pytest.raises(ParamsError) as error:
        load_params(path)
    text = re.sub(r"\s+", " ", str(error.value))
    assert "train.epochs: found 'many'; allowed: auto, or " in text
    assert "train.batch_size: found 'auto'; allowed: integer" in text


def test_what_auto_became_is_written_and_read_again():
    values = {"input_size": 128, "epochs": 12, "learning_rate": 1e-3}
    line = describe_auto(values)
    assert line == "auto: input_size 128, epochs 12, learning_rate 0.001"
    found = {"input_size": "128", "epochs": "12", "learning_rate": "0.001"}
    assert parse_auto(f"layer  type\nall    CNN\n{line}\n") == found
    assert parse_auto("layer  type\nall    CNN\n") == {}
