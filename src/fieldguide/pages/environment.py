"""The settings that all templates share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"


def new_environment(**settings: Any) -> Environment:
    """Return a Jinja2 environment of the templates beside this module.

    It refuses a name that has no value. It has the filters `percent` and `thousands`.

    Args:
        settings: further arguments of jinja2.Environment.
    """
    environment = Environment(  # noqa: S701 - HTML sets autoescape, Markdown escapes by finalize
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **settings,
    )
    environment.filters |= {"percent": "{:.1%}".format, "thousands": "{:,}".format}
    return environment
