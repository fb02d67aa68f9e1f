"""fieldguide: labelled photos in; a trained, evaluated and explained classifier out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fieldguide.inference.classifier import Classifier, Prediction
    from fieldguide.inference.load import load

__all__ = ["Classifier", "Prediction", "load"]
__version__ = "0.1.0"
_MODULES = {"Classifier": "classifier", "Prediction": "classifier", "load": "load"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that stages and `--help` start quickly."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"fieldguide.inference.{_MODULES[name]}"), name)
