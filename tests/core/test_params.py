"""params.yaml: allowed values, and errors that name the key, the value and what is allowed."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from fieldguide.core.errors import ParamsError
from fieldguide.core.params import CNNParams, epoch_size, load_params

ROOT = Path(__file__).resolve().parents[2]
DELETE = object()
# Key, smallest and largest value allowed, and one beyond each.
NOT_PORTABLE = {"compute.portable": False}
RANGES = [
    ("compute.threads", (1, 64), (0, 65)),
    ("data.image_size", (32, 512), (7, 513)),
    ("data.val_fraction", (0.01, 0.5), (0.0099, 0.51)),
    ("data.test_fraction", (0.01, 0.5), (0.0099, 0.51)),
    ("data.min_size", (1, 512), (0, 513)),
    ("data.max_unreadable", (0, 1), (-0.01, 1.01)),
    ("data.shard_size", (1, 1024), (0, 1025)),
    ("data.burst_seconds", (0, 86_400), (-1, 86_401)),
    ("data.min_photos", (1, 1_000_000), (0, 1_000_001)),
    ("data.seed", (0, 2**32 - 1), (-1, 2**32)),
    ("model.last_k", (1, 1000), (0, 1001)),
    ("model.layer_decay", (1e-12, 1), (0, 1.01)),
    ("model.conv_layers", (1, 5), (0, 9)),
    ("model.first_layer_filters", (1, 256), (0, 1025)),
    ("model.filter_org", (0.25, 4), (0.24, 4.1)),
    ("model.max_filters", (32, 8192), (0, 8193)),
    ("model.kernel_size", (1, 11), (0, 13)),
    ("model.residual_units", (0, 4), (-1, 5)),
    ("model.num_neurons_dense", (0, 8192), (-1, 8193)),
    ("model.dropout", (0, 0.95), (-0.1, 0.96)),
    ("train.batch_size", (1, 8192), (0, 8193)),
    ("train.epochs", (1, 10_000), (0, 10_001)),
    ("train.stop_after", (0, 22), (-1, 10_001)),
    ("train.patience", (1, 10_000), (0, 10_001)),
    ("train.learning_rate", (1e-12, 10), (0, 10.1)),
    ("train.warmup", (0, 0.9), (-0.1, 0.91)),
    ("train.gradient_clipping", (0, 1000), (-0.1, float("inf"))),
    ("train.ema_decay", (0, 0.9999), (-0.1, 1)),
    ("train.weight_decay", (0, 1), (-0.1, 1.1)),
    ("train.label_smoothing", (0, 0.5), (-0.1, 0.51)),
    ("train.balance_beta", (0, 1), (-0.1, 1.1)),
    ("train.crop_area", (1e-6, 1), (0, 1.1)),
    ("train.color_jitter", (0, 0.9), (-0.1, 0.91)),
    ("train.random_erasing", (0, 1), (-0.1, 1.1)),
    ("train.mixup", (0, 10), (-0.1, 10.1)),
    ("train.cutmix", (0, 10), (-0.1, 10.1)),
    ("train.start_size", (0.25, 1), (0.24, 1.01)),
    ("train.target_precision", (0.51, 0.999), (0.5, 1)),
    ("train.devices", (1, 64), (0, 65)),
    ("train.num_nodes", (1, 1024), (0, 1025)),
    ("train.seed", (0, 2**32 - 1), (-1, 2**32)),
    ("evaluate.calibration_bins", (2, 100), (1, 101)),
    ("visualize.photos_per_class", (1, 10), (0, 11)),
    ("visualize.neurons", (1, 50), (0, 51)),
    ("visualize.seed", (0, 2**32 - 1), (-1, 2**32)),
]


@pytest.fixture
def load(tmp_path):
    """Load the repository's file with some keys changed: load({"train.epochs": 3})."""

    def load_changed(changes):
        raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        for key, value in changes.items():
            *sections, last = key.split(".")
            holder = raw[sections[0]] if sections else raw
            if value is DELETE:
                del holder[last]
            else:
                holder[last] = value
        file = tmp_path / "params.yaml"
        file.write_text(yaml.safe_dump(raw), encoding="utf-8")
        return load_params(file)

    return load_changed


@pytest.fixture
def load_text(tmp_path):
    def load(text):
        file = tmp_path / "params.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_params(file)

    return load


def repository_text():
    return (ROOT / "params.yaml").read_text(encoding="utf-8")


def test_every_value_of_the_repository_file_is_read():
    params = load_params(ROOT / "params.yaml")
    raw = yaml.safe_load(repository_text())
    assert params.asked == raw


def test_parameters_cannot_be_changed_after_the_check(load):
    params = load({})
    with pytest.raises(ValidationError, match="frozen"):
        params.train.epochs = 3


@pytest.mark.parametrize(("key", "ends", "beyond"), RANGES)
def test_a_range_includes_both_ends_and_nothing_beyond(key, ends, beyond, load):
    section, name = key.split(".")
    # Photos that grow need a network for any size.
    others = {"model.pooling": "average", "model.conv_layers": 2} if name == "start_size" else {}
    for value in ends:
        assert getattr(getattr(load(others | {key: value}), section), name) == value
    for value in beyond:
        with pytest.raises(ParamsError, match=rf"{key}: found {value}; allowed: "):
            load({key: value})


def test_every_number_has_a_tested_range():
    params = load_params(ROOT / "params.yaml").model_dump()
    numbers = {
        f"{section}.{key}"
        for section, values in params.items()
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    assert numbers == {key for key, *_ in RANGES}


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("data.resize", ["crop", "squash"]),
        ("model.activation", ["relu", "gelu", "silu", "mish"]),
        ("model.batch_norm", [True, False]),
        ("model.norm_after_activation", [True, False]),
        ("model.pooling", ["flatten", "average"]),
        ("train.crop", ["shift", "resized", "none"]),
        ("train.train_on_val", [True, False]),
        ("train.compile", [True, False]),
        ("compute.portable", [True, False]),
        ("evaluate.flip_averaging", [True, False]),
        ("data.engine", ["local", "ray"]),
        ("train.optimizer", ["adam", "adamw", "nadam", "rmsprop", "sgd"]),
        ("train.balance", ["none", "weights", "sampler", "logit_adjustment"]),
        ("train.monitor", ["val/acc", "val/macro_f1", "val/loss"]),
        ("train.schedule", ["one_cycle", "cosine", "constant"]),
        ("train.precision", ["32", "16-mixed", "bf16-mixed"]),
        ("train.accelerator", ["auto", "cpu", "gpu", "mps"]),
        ("train.strategy", ["auto", "ddp"]),
    ],
)
def test_only_the_listed_choices_are_allowed(key, values, load):
    section, name = key.split(".")
    for value in values:
        assert getattr(getattr(load({**NOT_PORTABLE, key: value}), section), name) == value
    with pytest.raises(ParamsError, match=rf"{key}: found 'other'; allowed: "):
        load({key: "other"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.epochs", "3"),
        ("train.epochs", 3.0),
        ("train.epochs", True),
        ("train.epochs", None),
        ("train.epochs", [3]),
        ("train.learning_rate", "0.1"),
        ("train.learning_rate", float("nan")),
        ("train.learning_rate", float("inf")),
        ("train.use_augmentation", 1),
        ("train.use_augmentation", "yes"),
        ("data.archive", 3),
        ("data.archive", ""),
        ("data.archive", []),
        ("data.archive", ["a.zip", ""]),
        ("data.archive", ["a.zip", 3]),
        ("train", None),
        ("train", [1]),
    ],
)
def test_a_wrong_type_is_refused_and_not_converted(key, value, load):
    with pytest.raises(ParamsError, match=rf"{key}: found .*; allowed: "):
        load({key: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.accelerator": "gpu"}, "train.accelerator: found gpu; .*: auto, cpu; a GPU rounds"),
        ({"train.accelerator": "mps"}, "train.accelerator: found mps; .*: auto, cpu; a GPU rounds"),
        (
            {"train.precision": "bf16-mixed"},
            "train.precision: found bf16-mixed; .*: 32; processors",
        ),
        ({"train.precision": "16-mixed"}, "train.precision: found 16-mixed; .*: 32; processors"),
        ({"train.compile": True}, "train.compile: found true; .*: false; it writes code"),
    ],
)
def test_what_cannot_be_portable_is_refused_with_the_reason(changes, message, load):
    with pytest.raises(ParamsError, match=message):
        load(changes)
    load({**NOT_PORTABLE, **changes})


def test_there_may_be_several_archives(load):
    assert load({"data.archive": ["a.zip", "b"]}).data.archive == ["a.zip", "b"]


def test_an_integer_is_a_number_too(load):
    assert load({"train.weight_decay": 1}).train.weight_decay == 1.0


def test_precision_may_be_a_number_as_dvc_writes_it(load):
    assert load({"train.precision": 32}).train.precision == "32"


@pytest.mark.parametrize(
    ("written", "value"), [("1e-05", 1e-5), ("5e-4", 5e-4), ("+1E-2", 0.01), ("1.e-2", 0.01)]
)
def test_numbers_with_an_exponent_are_numbers(written, value, load_text):
    text = repository_text().replace("learning_rate: auto", f"learning_rate: {written}")
    assert load_text(text).train.learning_rate == value


def test_a_byte_order_mark_is_ignored(load_text):
    assert load_text(b"\xef\xbb\xbf" + repository_text().encode()).train.seed == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.learning_rte": 1}, r"train\.learning_rte: unknown key; did you mean learning_r"),
        ({"train.zzz": 1}, r"train\.zzz: unknown key; allowed: batch_size, epochs, "),
        ({"trian": {}}, r"trian: unknown key; did you mean train\?"),
        ({"train.epochs": DELETE}, r"train\.epochs: missing"),
        ({"evaluate": DELETE}, r"evaluate: missing"),
    ],
)
def test_unknown_and_missing_keys_are_named(changes, message, load):
    with pytest.raises(ParamsError, match=message):
        load(changes)


def test_all_problems_are_listed_at_once(load):
    with pytest.raises(ParamsError, match=r"(?s)data\.seed: found -1.*train\.epochs: missing"):
        load({"train.epochs": DELETE, "data.seed": -1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.first_layer_filters": 512},
            r"model\.first_layer_filters: found 512; allowed: at most model\.max_filters, 256",
        ),
        (
            {**NOT_PORTABLE, "train.precision": "16-mixed", "train.accelerator": "cpu"},
            r'train\.precision: "16-mixed" needs a GPU, and train\.accelerator is cpu',
        ),
        (
            {**NOT_PORTABLE, "train.accelerator": "mps", "train.num_nodes": 2},
            r"train\.accelerator: mps is a single device; .* train\.num_nodes: 2, .* allowed with",
        ),
        (
            {**NOT_PORTABLE, "train.accelerator": "mps", "train.strategy": "ddp"},
            r"train\.accelerator: mps is a single device; .* train\.strategy: ddp",
        ),
        ({"data.image_size": 31}, r"model\.conv_layers: 5 .*image_size 31 to nothing.*1 to 4"),
    ],
)
def test_contradictions_name_both_keys(changes, message, load):
    with pytest.raises(ParamsError, match=message):
        load(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnt50"}, "name: found 'resnt50'; allowed: cnn, or .*; did you mean resnet50?"),
        ({"name": "CNN"}, "name: found 'CNN'; allowed: .*; did you mean cnn?"),
        ({"name": "zzzzzz"}, r"name: found 'zzzzzz'; allowed: cnn, or .*timm\.list_models\(\)"),
        ({"name": "hf-hub:timm/resnet50"}, "name: found 'hf-hub:timm/resnet50'; allowed: .*"),
        ({"name": "local-dir:/x"}, "name: found 'local-dir:/x'; allowed: .*"),
        ({"name": ""}, "name: found ''; allowed: .*"),
        (
            {"name": "test_vit.best"},
            r"name: timm has no weights test_vit\.best; allowed: test_vit, test_vit\.r160_in1k",
        ),
        ({"name": "test_vit."}, r"name: timm has no weights test_vit\.; allowed: test_vit, .*"),
        *(
            (
                {"name": "test_vit", "finetune": "head", "weights": weights},
                f"weights: found '{weights}'; allowed: none, pretrained, or the name of a file .*",
            )
            for weights in ("../x.pth", "a/../x.pth", "/x.pth", "a//x.pth", "a/", "", "a b.pth")
        ),
        (
            {"weights": "pretrained", "finetune": "head"},
            r"weights: pretrained is for networks of timm, and model\.name is cnn; allowed with .*",
        ),
        *(
            (
                {"weights": f"x{suffix}", "finetune": "head"},
                rf"weights: x\{suffix} is for networks of timm, and model\.name is cnn; allowed .*",
            )
            for suffix in (".pth", ".pt", ".bin", ".safetensors")
        ),
        *(
            (
                {"name": name, "weights": "none", "finetune": finetune},
                rf"finetune: {finetune} would freeze random .* none; allowed with none: full",
            )
            for name in ("cnn", "test_vit")
            for finetune in ("head", "last_k", "gradual")
        ),
        *(
            (
                {"name": "test_vit", "input_size": size},
                f"input_size: found {size!r}; allowed: auto, or 8 to 512 pixels",
            )
            for size in (7, 513, 0, -8, 32.0, True, "32", "Auto", None)
        ),
        ({"input_size": []}, r"input_size: found \[\]; allowed: auto, or 8 to 512 pixels"),
        ({"last_k": 0}, "last_k: found 0; allowed: greater than or equal to 1"),
        ({"layer_decay": 0}, "layer_decay: found 0; allowed: greater than 0"),
        ({"finetune": "all"}, "finetune: found 'all'; allowed: .*"),
    ],
    ids=str,
)
def test_an_impossible_model_is_refused_in_one_line(changes, message, load):
    with pytest.raises(ParamsError) as err:
        load({f"model.{key}": value for key, value in changes.items()})
    _file, *lines = str(err.value).splitlines()
    assert len(lines) == 1
    assert re.fullmatch(rf"  model\.{message.replace('?', '[?]')}", lines[0]), lines[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "test_vit", "weights": "pretrained", "finetune": "head"},
        {"name": "test_vit.r160_in1k", "weights": "pretrained", "finetune": "gradual"},
        {"name": "test_vit", "weights": "some/file-1.2.safetensors", "finetune": "last_k"},
        {"name": "test_vit", "weights": "old", "finetune": "full", "input_size": 8},
        {"name": "test_vit", "weights": "none", "input_size": 512, "conv_layers": 8},
        {"weights": "old", "finetune": "head"},
        {"weights": "none", "input_size": "auto"},
    ],
    ids=str,
)
def test_possible_models_are_accepted(changes, load):
    model = load({f"model.{key}": value for key, value in changes.items()}).model
    assert {key: getattr(model, key) for key in changes} == changes
    if model.name == "cnn":
        assert type(model.architecture) is CNNParams
        shared = set(CNNParams.model_fields)
        assert model.architecture.model_dump() == model.model_dump(include=shared)
    else:
        assert model.architecture == model.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.input_size": 31},
            r"model\.conv_layers: 5 blocks halve model\.input_size 31 .* 4$",
        ),
        (
            {"model.input_size": 31, "data.image_size": 512},
            r"model\.conv_layers: 5 blocks halve model\.input_size 31 .*: 1 to 4$",
        ),
        (
            {
                "model.input_size": 512,
                "model.conv_layers": 1,
                "model.num_neurons_dense": 8192,
                "model.pooling": "flatten",
            },
            r"model\.num_neurons_dense: 8192 neurons over 256×256 pixels of 32 filters need",
        ),
    ],
)
def test_the_cnn_must_fit_its_input_size(changes, message, load):
    with pytest.raises(ParamsError, match=message):
        load(changes)


def test_the_photos_size_does_not_matter_if_input_size_is_set(load):
    assert load({"data.image_size": 8, "model.input_size": 32}).model.conv_layers == 5


@pytest.mark.parametrize(
    ("first", "factor", "layers", "filters"),
    [(32, 2.0, 5, [32, 64, 128, 256, 256]), (10, 0.5, 5, [10, 5, 2, 1, 1]), (7, 1, 2, [7, 7])],
)
def test_filters_grow_by_the_factor_and_are_at_least_one(first, factor, layers, filters, load):
    changes = {"first_layer_filters": first, "filter_org": factor, "conv_layers": layers}
    params = load({f"model.{key}": value for key, value in changes.items()})
    assert params.model.widths == filters


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found NoneType; allowed: a mapping of sections"),
        ("- 1", "found list; allowed: a mapping of sections"),
        ("data: [", "is not valid YAML"),
        (
            "data: {seed: 0, seed: 1}",
            r"found duplicate key \"seed\".* in line 1",
        ),
        ("data: {}\ndata: {}", r"found duplicate key \"data\".* in line 2"),
        ("3: {}", r"3: the key is not text"),
        ("? [a]\n: 1", r"the key is not text"),
        ("data: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        (b"data: \xff", r"is not UTF-8 text \(byte 6\)"),
    ],
)
def test_a_file_without_a_mapping_of_sections_is_refused(text, message, load_text):
    with pytest.raises(ParamsError, match=message):
        load_text(text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ParamsError, match=r"nowhere\.yaml: cannot be read \(No such file"):
        load_params(tmp_path / "nowhere.yaml")


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(ParamsError, match=r"cannot be read \(Is a directory"):
        load_params(tmp_path)


def test_growing_photos_need_a_network_for_any_size(load):
    with pytest.raises(
        ParamsError, match=r"start_size: 0.5 needs .* allowed with flatten: 1.0; or"
    ):
        load({"train.start_size": 0.5, "model.pooling": "flatten"})


def test_the_smaller_photos_of_the_first_epoch_must_fit_the_blocks(load):
    changes = {"data.image_size": 64, "model.pooling": "average", "model.conv_layers": 5}
    match = r"conv_layers: 5 .* data.image_size 64 × train.start_size 0.25 to nothing; .*: 1 to 4"
    with pytest.raises(ParamsError, match=match):
        load(changes | {"train.start_size": 0.25})  # 16 pixels
    assert load(changes | {"train.start_size": 0.5}).train.start_size == 0.5


@pytest.mark.parametrize(
    ("size", "start", "epochs", "expected"),
    [
        (64, 0.5, 6, [32, 40, 48, 56, 64, 64]),  # 1/2 + 1/2 · k/4 of 64
        (64, 1.0, 3, [64, 64, 64]),
        (100, 0.5, 3, [48, 72, 100]),  # 50 and 75, to the nearest multiple of 8
        (32, 0.25, 1, [32]),  # one epoch leaves no time to grow
        (64, 0.25, 2, [16, 64]),
        (64, 0.5, 5, [32, 40, 56, 64, 64]),  # 1/2 + 1/2 · k/3: 42.7 and 53.3
        (12, 0.25, 3, [8, 8, 12]),
    ],
)
def test_sizes_of_epochs(size, start, epochs, expected):
    assert [epoch_size(size, start, k, of=epochs) for k in range(epochs)] == expected
