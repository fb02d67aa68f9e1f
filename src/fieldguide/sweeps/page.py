"""The skeleton of the report's page: one file that runs nothing but itself and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

# Reads each chart's JSON, which no browser runs, and draws it.
_START = """
for (const block of document.querySelectorAll("script[type='application/json']")) {
  const figure = JSON.parse(block.textContent);
  const settings = { displaylogo: false, responsive: true };
  Plotly.newPlot(block.dataset.chart, figure.data, figure.layout, settings);
}
"""
_STYLE = """
body { margin: 0 auto; max-width: 1240px; padding: 24px 32px 64px; color: #222;
  font: 15px/1.5 system-ui, sans-serif; background: #fff; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 44px 0 2px; border-top: 1px solid #e2e2e2; padding-top: 20px; }
p { margin: 2px 0 10px; max-width: 860px; }
.note { color: #555; }
.facts { display: flex; flex-wrap: wrap; gap: 8px 36px; margin: 16px 0 8px; padding: 0; }
.facts div { min-width: 90px; }
.facts dt { color: #555; font-size: 13px; }
.facts dd { margin: 0; font-size: 20px; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; text-align: left; border-bottom: 1px solid #ececec;
  white-space: nowrap; vertical-align: middle; }
th { color: #555; font-weight: 600; white-space: normal; vertical-align: bottom;
  line-height: 1.25; border-bottom-color: #bbb; }
td.number, th.number { text-align: right; }
code { font: 13px ui-monospace, monospace; background: #f4f4f4; padding: 1px 5px;
  border-radius: 3px; }
.bar { position: relative; display: inline-block; width: 180px; height: 12px;
  background: #f2f2f2; vertical-align: middle; margin-right: 8px; }
.bar i { position: absolute; top: 0; bottom: 0; }
.bar b { position: absolute; top: -2px; bottom: -2px; left: 50%; width: 1px; background: #888; }
"""


def page(title: str, body: str) -> str:
    """Return the whole page.

    A Content-Security-Policy allows the two scripts of this module by their hashes and forbids all
    others and the network: https://www.w3.org/TR/CSP3/.

    Args:
        title: text.
        body: HTML.
    """
    plotly = get_plotlyjs()
    policy = "; ".join(
        (
            "default-src 'none'",
            # Parallel coordinates compile their drawing; without eval Plotly would tell the reader
            # that the browser has no WebGL.
            f"script-src {_hash(plotly)} {_hash(_START)} 'unsafe-eval'",
            "style-src 'unsafe-inline'",  # Plotly sets styles itself
            "img-src data: blob:",  # and saves a chart as a picture
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light">\n'
        f"<title>{html.escape(title)}</title>\n"
        '<link rel="icon" href="data:,">\n'  # or a browser asks for one
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{plotly}</script>\n<script>{_START}</script>\n</body>\n</html>\n"
    )


def section(name: str, title: str, note: str, content: str) -> str:
    """Return a part of the page.

    Args:
        name: of its anchor.
        title: text.
        note: text, how to read it.
        content: HTML.
    """
    return (
        f'<section id="{name}">\n<h2>{html.escape(title)}</h2>\n'
        f'<p class="note">{html.escape(note)}</p>\n{content}\n</section>\n'
    )


def chart(name: str, figure: go.Figure) -> str:
    """Return where a chart is drawn, and its data as JSON."""
    data = figure.to_json().replace("<", "\\u003c")  # a value cannot end the block
    return (
        f'<div id="{name}-chart"></div>\n'
        f'<script type="application/json" data-chart="{name}-chart">{data}</script>'
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and values, texts, as a line of large numbers."""
    cells = (
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in pairs
    )
    return f'<dl class="facts">{"".join(cells)}</dl>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int]) -> str:
    """Return a table that scrolls sideways where it is too wide.

    Args:
        header: texts.
        rows: cells as HTML.
        numbers: columns set flush right.
    """
    style = ['class="number"' if k in numbers else "" for k in range(len(header))]
    head = "".join(
        f"<th {s}>{html.escape(text).replace('_', '_<wbr>')}</th>"
        for s, text in zip(style, header, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td {s}>{c}</td>" for s, c in zip(style, row, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}</table></div>'


def bar(value: float | None, *, text: str, colour: str, signed: bool = False) -> str:
    """Return a bar and its number.

    Args:
        value: in [0, 1], or [-1, 1] where `signed`; None draws none.
        text: its number.
        colour: of CSS.
        signed: starts in the middle.
    """
    if value is None:
        return "–"
    width = abs(value) * (50 if signed else 100)
    left = (50 - width if value < 0 else 50) if signed else 0
    middle = "<b></b>" if signed else ""
    return (
        f'<span class="bar"><i style="left:{left:.1f}%;width:{width:.1f}%;background:{colour}">'
        f"</i>{middle}</span>{html.escape(text)}"
    )


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
