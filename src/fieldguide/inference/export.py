"""A trained classifier as one file for other programs: ONNX, or an exported program of PyTorch.

The file takes pixels as they are decoded and gives probabilities: whoever uses it need not repeat
the preprocessing. It is written only if it answers as the original does.
"""

from __future__ import annotations

import json
import logging
import shlex
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import fieldguide
from fieldguide.core.errors import FieldguideError, PhotoError
from fieldguide.core.files import aside
from fieldguide.core.store import Store
from fieldguide.inference.answers import find_photos
from fieldguide.inference.classifier import Classifier
from fieldguide.inference.onnx_classifier import (
    FORMAT,
    INSTALL,
    METADATA,
    PIXELS,
    PROBABILITIES,
    OnnxClassifier,
)
from fieldguide.inference.torch_classifier import TorchClassifier
from fieldguide.network.bundle import Bundle
from fieldguide.network.preprocessing import to_unit

if TYPE_CHECKING:
    import onnx

Format = Literal["onnx", "torch"]
Run = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float64]]  # (B, S, S, 3) -> (B, K)
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
EXPORTED = Path("models/exported")
PREPARED = Path("data/prepared")
DESCRIPTION = "fieldguide.json"  # in a .pt2 file
PHOTOS = 256  # at most, to compare answers
TOLERANCE = 1e-3  # of a probability; float32 rounds to some 1e-6
LARGEST = 2_000_000_000  # bytes of weights; protobuf, which ONNX is written in, ends at 2 GiB
BATCHES = (1, 32)  # photos, of which the run time is measured
SECONDS, ROUNDS = 1.0, (3, 100)  # of measuring a batch size


class Check(NamedTuple):
    """How far an exported classifier is from the original."""

    photos: int
    difference: float  # the largest, of a probability


class FromPixels(nn.Module):
    """A classifier with its preprocessing, as it is exported."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.net = bundle.net
        # The code of training itself. ONNX's antialiased Resize, which it becomes, is within 0.004
        # grey levels of PyTorch's at all sizes that were tried, 16 to 512 pixels, bicubic too.
        self.preprocessing = bundle.preprocessing

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities: (B, S, S, 3) uint8 RGB -> (B, K) float32, rows sum to 1."""
        scores: Tensor = self.net(self.preprocessing(to_unit(pixels)))
        return scores.softmax(dim=1)


def export(
    model: Path, form: Format, *, out: Path | None = None, photos: Path | None = None
) -> None:
    """Write a classifier as one file, compare it with the original, and say how both do.

    Args:
        model: the folder of a bundle.
        form: of the file.
        out: the file; None for one in models/exported/.
        photos: a folder of photos to compare on; None for the prepared test split.

    Raises:
        FieldguideError: there is nothing to compare on, PyTorch cannot export this network, or the
            file does not answer as the original; nothing is left of it then.
    """
    if not model.is_dir():
        raise FieldguideError(f"--model: found {model}; allowed: a classifier's folder")
    out = out or EXPORTED / f"classifier{SUFFIXES[form]}"
    if out.suffix != SUFFIXES[form]:
        raise FieldguideError(f"{out}: allowed for this format: a name ending in {SUFFIXES[form]}")
    original = TorchClassifier(model, device="cpu")
    pixels = pixels_to_compare(original, photos)
    try:
        with aside(out) as partial:
            exported = _write(original.bundle, form, partial)
            check = compare(original.probabilities, exported, pixels)
            times = {b: _milliseconds(original.probabilities, exported, pixels, b) for b in BATCHES}
    except OSError as err:
        raise FieldguideError(f"{out}: cannot be written ({err.strerror or err})") from err
    _print(model, out, check, times)


def pixels_to_compare(classifier: Classifier, folder: Path | None) -> npt.NDArray[np.uint8]:
    """Photos as the classifier takes them: -> (N, S, S, 3), N at most PHOTOS, spread evenly.

    Args:
        classifier: decodes those of a folder.
        folder: of photos, at any depth; None for the prepared test split. No label is read.

    Raises:
        FieldguideError: there is none, or they were prepared for another classifier.
    """
    if folder is not None:
        return _decoded(classifier, folder)
    todo = "run `dvc repro prepare` or give --photos FOLDER"
    if not (PREPARED / "dataset.json").exists():
        raise FieldguideError(f"export needs photos to check the result: {todo}")
    store = Store(PREPARED)
    if store.image_size != classifier.image_size:
        raise FieldguideError(
            f"export needs photos to check the result, of {classifier.image_size} pixels; "
            f"{PREPARED} has {store.image_size}: {todo}"
        )
    test = store.split("test")
    return test.images(_spread(len(test)))


def _decoded(classifier: Classifier, folder: Path) -> npt.NDArray[np.uint8]:
    if not folder.is_dir():
        raise FieldguideError(f"--photos: found {folder}; allowed: a folder of photos")
    files = find_photos([folder])
    chosen = [files[row] for row in _spread(len(files))]
    answers = []
    problem = ""
    for file in chosen:
        try:
            answers.append(classifier.pixels(file))
        except PhotoError as err:
            problem = f" ({err})"
    if not answers:
        raise FieldguideError(
            f"{folder}: no photo could be read among {len(chosen):,} files{problem}; "
            "allowed: a folder with one or more"
        )
    return np.stack(answers)


def _spread(count: int) -> npt.NDArray[np.int64]:
    """At most PHOTOS indices below `count`, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, PHOTOS)).round().astype(np.int64)


def compare(original: Run, exported: Run, pixels: npt.NDArray[np.uint8]) -> Check:
    """Compare answers photo by photo; batches have the sizes that use will bring.

    Raises:
        FieldguideError: another class is the most probable, or a probability is too different.
    """
    first, second = original(pixels), exported(pixels)  # (N, K)
    alone = exported(pixels[:1])  # a graph may have kept the size of the batch it was made with
    difference = float(max(np.abs(first - second).max(), np.abs(first[:1] - alone).max()))
    other = int((first.argmax(axis=1) != second.argmax(axis=1)).sum())
    # Not `>`, which a NaN would pass.
    if other or not difference <= TOLERANCE:
        raise FieldguideError(
            f"the exported classifier does not answer as the original: another class for {other} "
            f"of {len(pixels)} photos, largest difference of a probability {difference:.2g}; "
            f"allowed: 0, and {TOLERANCE:g}; nothing was written"
        )
    return Check(len(pixels), difference)


def describe(bundle: Bundle) -> str:
    """JSON that the file carries: what it takes to use it, and where it is from."""
    return json.dumps(
        {
            "format": FORMAT,
            "classes": bundle.classes,
            "image_size": bundle.image_size,
            "resize": bundle.resize,
            "architecture": bundle.name,
            "val_acc": bundle.val_acc,
        }
    )


def _write(bundle: Bundle, form: Format, path: Path) -> Run:
    """Write the file, and return how to run it."""
    size = sum(value.nbytes for value in bundle.net.state_dict().values())
    if form == "onnx" and size > LARGEST:
        raise FieldguideError(
            f"the network has {size / 1e9:.1f} GB of weights; allowed in an ONNX file: "
            f"{LARGEST / 1e9:.0f} GB; `--format torch` has no such limit"
        )
    write = write_onnx if form == "onnx" else write_torch
    try:
        with _quiet():
            return write(bundle, path)
    except (OSError, FieldguideError):
        raise
    # The exporter raises nearly anything for a network that it cannot follow.
    except Exception as err:
        lines = str(err).strip().splitlines() or [type(err).__name__]
        raise FieldguideError(f"PyTorch cannot export this network ({lines[0]})") from err


def write_onnx(bundle: Bundle, path: Path) -> Run:
    """Write an ONNX file.

    Raises:
        FieldguideError: a package is missing.
    """
    try:
        import onnx  # noqa: PLC0415 - an extra
        import onnxruntime  # noqa: F401, PLC0415
        import onnxscript  # noqa: F401, PLC0415
    except ImportError as err:
        raise FieldguideError(f"an export to ONNX needs more packages ({err}); {INSTALL}") from err
    program = torch.onnx.export(
        FromPixels(bundle).eval(),
        (_example(bundle),),
        dynamo=True,
        dynamic_shapes={PIXELS: {0: torch.export.Dim("batch", min=1)}},
        input_names=[PIXELS],
        output_names=[PROBABILITIES],
        verbose=False,
    )
    assert program is not None  # it is None only of the older exporter
    model = program.model_proto
    _label(model, bundle)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return OnnxClassifier(path).probabilities


def _label(model: onnx.ModelProto, bundle: Bundle) -> None:
    """Describe the model, and leave out what the exporter notes: paths of this machine."""
    graph = model.graph
    parts = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
    for noted in (graph, *(one for part in parts for one in part)):
        noted.ClearField("metadata_props")
    model.producer_name = "fieldguide"
    model.producer_version = fieldguide.__version__
    size = bundle.image_size
    model.doc_string = (
        f"Photo classifier. {PIXELS}: (batch, {size}, {size}, 3) uint8, RGB squares of a photo "
        f"({bundle.resize}). {PROBABILITIES}: (batch, {len(bundle.classes)}) float32; names of "
        f"the classes are in the metadata '{METADATA}'."
    )
    model.metadata_props.add(key=METADATA, value=describe(bundle))


def write_torch(bundle: Bundle, path: Path) -> Run:
    """Write an exported program of PyTorch, for `torch.export.load`."""
    program = torch.export.export(
        FromPixels(bundle).eval(),
        (_example(bundle),),
        dynamic_shapes={PIXELS: {0: torch.export.Dim("batch", min=1)}},
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    # Opened here: given a name, PyTorch objects to any but *.pt2.
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={DESCRIPTION: describe(bundle)})
    with path.open("rb") as written:
        loaded = torch.export.load(written).module()

    @torch.inference_mode()
    def run(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        return np.asarray(loaded(torch.from_numpy(pixels)).double().numpy())

    return run


def _example(bundle: Bundle) -> Tensor:
    """Two photos: of one, exporters take the number for a constant."""
    return torch.zeros(2, bundle.image_size, bundle.image_size, 3, dtype=torch.uint8)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' warnings and log to themselves: they are about their own insides."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)


def _milliseconds(
    original: Run, exported: Run, pixels: npt.NDArray[np.uint8], batch: int
) -> tuple[float, float]:
    """Run time of each for one photo, in batches: medians of runs that alternate."""
    photos = pixels[np.arange(batch) % len(pixels)]  # (B, S, S, 3)
    taken: tuple[list[float], list[float]] = ([], [])
    original(photos), exported(photos)  # what the first run prepares is not timed
    least, most = ROUNDS
    end = time.perf_counter() + SECONDS
    while len(taken[0]) < least or (len(taken[0]) < most and time.perf_counter() < end):
        for run, seconds in zip((original, exported), taken, strict=True):
            start = time.perf_counter()
            run(photos)
            seconds.append(time.perf_counter() - start)
    first, second = (statistics.median(seconds) * 1000 / batch for seconds in taken)
    return first, second


def _print(model: Path, out: Path, check: Check, times: dict[int, tuple[float, float]]) -> None:
    table = Table("", box=box.SIMPLE_HEAD)
    for name in ("original", "exported"):
        table.add_column(name, justify="right")
    for batch, pair in times.items():
        at = "one at a time" if batch == 1 else f"{batch} at a time"
        table.add_row(f"ms per photo, {at}", *(f"{value:.2f}" for value in pair))
    sizes = sum(file.stat().st_size for file in model.iterdir()), out.stat().st_size
    table.add_row("size in MB", *(f"{size / 1e6:.2f}" for size in sizes))
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    name = shlex.quote(str(out))
    use = f"torch.export.load({str(out)!r}).module()(pixels)"
    if out.suffix == SUFFIXES["onnx"]:
        use = f"fieldguide predict --model {name} photo.jpg"
    console.print(
        f"the same class for each of {check.photos:,} photos; largest difference of a probability "
        f"{check.difference:.1g}\n{out} is written; to use it: {use}",
        soft_wrap=True,
    )
