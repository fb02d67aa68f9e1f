"""A classifier that was exported to ONNX, run by ONNX Runtime.

Imports neither PyTorch nor pydantic, which take most of a bundle's cold start.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldguide.core.errors import BundleError
from fieldguide.inference.classifier import Classifier

if TYPE_CHECKING:
    import onnxruntime

METADATA = "fieldguide"  # key of the description, JSON, in the file's metadata
FORMAT = 1  # of that description
PIXELS, PROBABILITIES = "pixels", "probabilities"  # input and output of the graph
INSTALL = "pip install 'fieldguide[onnx]'"
MAX_SIZE = 512  # pixels; that of `params`, which would import pydantic
_FATAL = 4  # ONNX Runtime's log level: its errors are raised, and need not be printed too


class OnnxClassifier(Classifier):
    """Loaded from a file of `fieldguide export --format onnx`; the same code on every machine."""

    def __init__(self, path: Path) -> None:
        """Load the file.

        Raises:
            BundleError: it cannot be read, is no ONNX file or not one of ours, or ONNX Runtime is
                not installed.
        """
        self._path = path
        self._session = _open(path)
        found = _read_description(path, self._session)
        super().__init__(found.classes, image_size=found.image_size, resize=found.resize)

    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Classify decoded photos: (B, S, S, 3) RGB -> (B, K).

        Raises:
            BundleError: the graph of the file cannot be run.
        """
        try:
            (rows,) = self._session.run([PROBABILITIES], {PIXELS: pixels})
        except Exception as err:  # ONNX Runtime's errors share no other class
            raise BundleError(f"{self._path}: cannot be run ({_reason(err)})") from err
        scores = np.asarray(rows, dtype=np.float64)
        # float32 rows sum to 1 within rounding.
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))


class _Description(NamedTuple):
    classes: list[str]
    image_size: int  # pixels
    resize: Literal["crop", "squash"]


def _open(path: Path) -> onnxruntime.InferenceSession:
    """Load a graph that may come from a stranger; it is data, and cannot name code.

    Operators are those that ONNX Runtime was built with: a graph with any other is refused, because
    only the program that loads it can register a library of more. Weights may lie in other files,
    whose names ONNX Runtime takes from the graph. It refuses absolute paths and `..` itself, and
    here the rest too: what it is told to search is a file, in which no other can lie.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - an extra
    except ImportError as err:
        raise BundleError(f"{path}: needs ONNX Runtime ({err}); {INSTALL}") from err
    try:
        data = path.read_bytes()
    except OSError as err:
        raise BundleError(f"{path}: cannot be read ({err.strerror})") from err
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    # Threads that wait for the next photos would do so at full load, beside those that decode them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not ORT's own
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path.resolve())
    )
    try:
        # The CPU also where there is a GPU: the answers are those that the export has checked.
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as err:  # ONNX Runtime's errors share no other class
        raise BundleError(f"{path}: not an ONNX file, or damaged ({_reason(err)})") from err


def _read_description(path: Path, session: onnxruntime.InferenceSession) -> _Description:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    if text is None:
        raise BundleError(
            f"{path}: not a classifier of fieldguide (no metadata '{METADATA}'); "
            "allowed: what `fieldguide export` writes"
        )
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise BundleError(f"{path}: metadata '{METADATA}' is not JSON ({err})") from err
    problem = _problem(found) or _mismatch(found, session)
    if problem:
        raise BundleError(f"{path}: metadata '{METADATA}': {problem}")
    return _Description(found["classes"], found["image_size"], found["resize"])


def _problem(found: Any) -> str | None:
    """What is wrong with a description, or None."""
    version = found.get("format") if isinstance(found, dict) else type(found).__name__
    if version != FORMAT:
        return f"found format {version!r}; allowed: {FORMAT}"
    classes, size, resize = (found.get(key) for key in ("classes", "image_size", "resize"))
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not named or len(set(classes)) != len(classes) or len(classes) < 2:  # noqa: PLR2004
        return "'classes': allowed: two or more names, none of them twice"
    if type(size) is not int or not 1 <= size <= MAX_SIZE:
        return f"'image_size': found {size!r}; allowed: 1 to {MAX_SIZE} pixels"
    if resize not in ("crop", "squash"):
        return f"'resize': found {resize!r}; allowed: crop or squash"
    return None


def _mismatch(found: dict[str, Any], session: onnxruntime.InferenceSession) -> str | None:
    """Where the graph's input and output are not those that a description promises, or None."""
    size, classes = found["image_size"], len(found["classes"])
    ends = [*session.get_inputs(), *session.get_outputs()]
    graph = [(end.name, end.type, end.shape[1:]) for end in ends]
    promised = [
        (PIXELS, "tensor(uint8)", [size, size, 3]),
        (PROBABILITIES, "tensor(float)", [classes]),
    ]
    return None if graph == promised else f"found {graph} in the graph; allowed: {promised}"


def _reason(err: Exception) -> str:
    """ONNX Runtime's message without its code, as "[ONNXRuntimeError] : 1 : FAIL : "."""
    lines = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(err)).splitlines()
    return lines[0] if lines else type(err).__name__
