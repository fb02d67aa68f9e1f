"""Render a page from a template: one file that loads nothing and runs only its own scripts."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment
from plotly.offline import get_plotlyjs

from fieldguide.pages.environment import TEMPLATES, new_environment


def render(template: str, *, with_plotly: bool = True, **context: Any) -> str:
    """Return the page that a template makes of values. Values are escaped.

    The page's Content-Security-Policy allows Plotly and draw.js by their hashes and forbids all
    other scripts and the network. Source: https://www.w3.org/TR/CSP3/.

    Args:
        template: name of a file in `templates/` that extends base.html.
        with_plotly: False for a page without charts, which is 5 MB smaller.
        context: values by their names in the template.
    """
    draw = TEMPLATES / "draw.js"
    scripts = [get_plotlyjs(), draw.read_text(encoding="utf-8")] if with_plotly else []
    page = _environment().get_template(template)
    return page.render(scripts=scripts, hashes=map(_hash, scripts), **context)


@cache
def _environment() -> Environment:
    environment = new_environment(autoescape=True)
    environment.filters["plotly"] = _json
    return environment


def _json(figure: go.Figure) -> str:
    """Return a figure as JSON in which no value can end the script element around it."""
    return str(figure.to_json()).replace("<", "\\u003c")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
