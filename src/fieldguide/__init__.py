"""fieldguide: labelled photos in; a trained, evaluated and explained classifier out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fieldguide.inference.classifier import Classifier, Prediction, load

__all__ = ["Classifier", "Prediction", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what users need only when they use it: stages and `--help` do not."""
    if name in __all__:
        return getattr(importlib.import_module("fieldguide.inference.classifier"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
