"""Write the Markdown of GitHub and GitLab: plain text, tables and folded parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fieldguide.core.errors import printable

_GAP = "\u200b"  # zero-width space
# GitHub and GitLab look for these in the rendered text, where a backslash does not help: mentions,
# issues, labels, emoji and bare URLs. https://docs.gitlab.com/user/markdown/
_REFERENCE = re.compile(
    r"(?<=[@#!~%$&])(?=[\w\"'])|(?<=:)(?=//|[\w+-]+:)|(?<=\bGH-)(?=\d)", re.IGNORECASE
)
# Characters that open markup anywhere; underscores at the edge of a word; list numbers; what opens
# a list, a rule or a heading at the start of a line; and the dot of a bare www address.
_MARKUP = re.compile(
    r"[\\`*\[\]{}<>|~&$#]"
    r"|_(?![^\W_])|(?<![^\W_])_"
    r"|(?<=\d)[.)](?=\s|$)"
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
    line = " ".join(printable(text).split())
    return _MARKUP.sub(lambda found: f"\\{found[0]}", _REFERENCE.sub(_GAP, line))


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
