"""Write the Markdown of GitHub and GitLab: plain text, tables, folded parts, and templates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from fieldguide.core.errors import printable
from fieldguide.core.output import cut
from fieldguide.pages.environment import new_environment

_NUMBER = re.compile(r"^(\d+)(?=[.)](\s|$))")  # of a list
_GAP = "\u200b"  # zero-width space
# GitHub and GitLab look for these in the rendered text, where a backslash does not help: mentions,
# issues, labels, emoji and bare URLs. https://docs.gitlab.com/user/markdown/
_REFERENCE = re.compile(
    r"(?<=[@#!~%$&])(?=[\w\"'])|(?<=:)(?=//|[\w+-]+:)|(?<=\bGH-)(?=\d)", re.IGNORECASE
)
# Characters that open markup anywhere; underscores at the edge of a word; what opens a list, a rule
# or a heading at the start of a line; and the dot of a bare www address.
_MARKUP = re.compile(
    r"[\\`*\[\]{}<>|~&$#]"
    r"|_(?![^\W_])|(?<![^\W_])_"
    r"|^[-+=:](?=[-+=:\s]|$)"
    r"|(?<=www)\.",
    re.IGNORECASE,
)


def escape(text: str) -> str:
    """Return text that Markdown shows as it is.

    Names come from archives of strangers. None of them becomes markup, HTML, a link, a mention, a
    table cell or a line of its own. Control characters are replaced, and each run of white space
    becomes one space.
    """
    line = _REFERENCE.sub(_GAP, " ".join(printable(text).split()))
    return _NUMBER.sub(r"\1\\", _MARKUP.sub(r"\\\g<0>", line))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """Return a table.

    Args:
        header: Markdown, a cell for each column.
        rows: cells of Markdown; text must be escaped.
        align: a letter for each column, `l` or `r`; by default all are `l`.
    """
    rule = ["--:" if letter == "r" else ":--" for letter in align or "l" * len(header)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def folded(summary: str, content: str) -> str:
    """Return content that the reader opens with a click.

    Args:
        summary: text of our own, one line.
        content: Markdown.
    """
    return f"<details><summary>{summary}</summary>\n\n{content}\n\n</details>"


def join(*blocks: str) -> str:
    """Join blocks by empty lines; empty blocks are left out."""
    return "\n\n".join(filter(None, blocks))


def render(template: str, **context: Any) -> str:
    """Return the Markdown that a template makes of values.

    Every value is escaped as by `escape`, except one that the template marks as `safe`. The filter
    `cut` shortens text to 60 characters, because GitHub's comments are limited in length.

    Args:
        template: name of a file in `templates/`.
        context: values by their names in the template.
    """
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> Environment:
    environment = new_environment(autoescape=False, finalize=_finalize)  # autoescape is for HTML
    environment.filters["cut"] = partial(cut, longest=60)
    return environment


def _finalize(value: Any) -> str:
    return value if isinstance(value, Markup) else escape(str(value))
