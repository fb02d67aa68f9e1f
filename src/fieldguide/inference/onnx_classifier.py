"""A classifier that was exported to ONNX, run by ONNX Runtime.

This module imports neither PyTorch nor pydantic, which would take most of a cold start.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fieldguide.core.errors import BundleError
from fieldguide.inference.classifier import Classifier

if TYPE_CHECKING:
    import onnxruntime

METADATA = "fieldguide"  # key of the JSON description in the file's metadata
FORMAT = 2  # version of that description
PIXELS, PROBABILITIES = "pixels", "probabilities"  # names of the graph's input and output
INSTALL = "pip install 'fieldguide[onnx]'"
MAX_SIZE = 512  # pixels; the limit in core/params.py, which imports pydantic
_FATAL = 4  # log level of ONNX Runtime: it raises its errors, so it need not print them too


class OnnxClassifier(Classifier):
    """A classifier loaded from a file that `fieldguide export` wrote."""

    def __init__(self, path: Path) -> None:
        """Load the file.

        Raises:
            BundleError: the file cannot be read, is not an ONNX file, was not written by
                `fieldguide export`, or ONNX Runtime is not installed.
        """
        self._path = path
        self._session = _open(path)
        found = _read_description(path, self._session)
        super().__init__(
            found["classes"],
            image_size=found["image_size"],
            resize=found["resize"],
            calibrated=found["calibration"] is not None,
            min_confidence=(found["calibration"] or {}).get("min_confidence"),
        )

    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Classify decoded photos: (B, S, S, 3) RGB -> (B, K).

        Raises:
            BundleError: ONNX Runtime cannot run the graph.
        """
        try:
            (rows,) = self._session.run([PROBABILITIES], {PIXELS: pixels})
        except Exception as err:  # ONNX Runtime's errors have no common base class
            raise BundleError(f"{self._path}: cannot be run ({_reason(err)})") from err
        scores = np.asarray(rows, dtype=np.float64)
        # A float32 row sums to 1 only within rounding.
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def _open(path: Path) -> onnxruntime.InferenceSession:
    """Load a graph safely, because the file may come from a stranger.

    A graph cannot bring its own code: ONNX Runtime refuses operators that it was not built with,
    and only the program that loads the graph can register a library with more of them.

    A graph could name other files as its weights. ONNX Runtime refuses absolute paths and `..`. It
    refuses all other paths too, because the folder that it should search is set to the path of the
    .onnx file itself, and a file cannot contain another one.
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
    # Otherwise idle threads of the network would keep the cores busy that decode the next photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not ONNX Runtime's own
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path.resolve())
    )
    try:
        # Always the CPU: on it, the export has checked that the answers are the right ones.
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as err:  # ONNX Runtime's errors have no common base class
        raise BundleError(f"{path}: not an ONNX file, or damaged ({_reason(err)})") from err


def _read_description(path: Path, session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """Read and check the metadata: `classes`, `image_size` in pixels, `resize`, `calibration`."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    if text is None:
        raise BundleError(
            f"{path}: not a classifier of fieldguide (no metadata '{METADATA}'); "
            "allowed: a file that `fieldguide export` wrote"
        )
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # fails for half a surrogate pair
    except (ValueError, RecursionError) as err:
        raise BundleError(f"{path}: metadata '{METADATA}' is not JSON ({err})") from err
    problem = _problem(found) or _mismatch(found, session)
    if problem:
        raise BundleError(f"{path}: metadata '{METADATA}': {problem}")
    return dict(found)


def _problem(found: Any) -> str | None:
    """Say what is wrong with a description; None if it is right."""
    if not isinstance(found, dict):
        return f"found {type(found).__name__}; allowed: a mapping"
    for key, (allows, allowed) in _ALLOWED.items():
        if key not in found:
            return f"'{key}': missing; allowed: {allowed}"
        if not allows(found[key]):
            return f"'{key}': found {reprlib.repr(found[key])}; allowed: {allowed}"
    return None


def _are_classes(found: Any) -> bool:
    named = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return named and len(set(found)) == len(found) >= 2  # noqa: PLR2004


def _is_calibration(found: Any) -> bool:
    if found is None:
        return True
    if not isinstance(found, dict) or "min_confidence" not in found:
        return False
    value = found["min_confidence"]
    return value is None or (type(value) in (int, float) and 0 <= value < 1)


_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format": (lambda found: found == FORMAT, str(FORMAT)),
    "classes": (_are_classes, "two or more names, each only once"),
    "image_size": (
        lambda found: type(found) is int and 1 <= found <= MAX_SIZE,
        f"1 to {MAX_SIZE} pixels",
    ),
    "resize": (lambda found: found in ("crop", "squash"), "crop or squash"),
    "calibration": (
        _is_calibration,
        "null, or a mapping whose 'min_confidence' is null or a number from 0 to below 1",
    ),
}


def _mismatch(found: dict[str, Any], session: onnxruntime.InferenceSession) -> str | None:
    """Say how the graph's input and output differ from the description; None if they do not."""
    size, classes = found["image_size"], len(found["classes"])
    ends = [*session.get_inputs(), *session.get_outputs()]
    graph = [(end.name, end.type, end.shape[1:]) for end in ends]
    described = [
        (PIXELS, "tensor(uint8)", [size, size, 3]),
        (PROBABILITIES, "tensor(float)", [classes]),
    ]
    return None if graph == described else f"found {graph} in the graph; allowed: {described}"


def _reason(err: Exception) -> str:
    """ONNX Runtime's message without its prefix, such as "[ONNXRuntimeError] : 1 : FAIL : "."""
    lines = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(err)).splitlines()
    return lines[0] if lines else type(err).__name__
