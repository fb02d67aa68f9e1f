"""The skeleton of a report's page: one file that runs nothing but itself and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from fieldguide.figures.canvas import GREY

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
nav { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 14px 0 0; font-size: 14px; }
a { color: #1f5fa8; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr));
  gap: 8px 32px; align-items: start; }
.pair > * { min-width: 0; }
.columns { columns: 300px 4; column-gap: 32px; }
.columns > div { break-inside: avoid; padding-top: 1px; }
h3 { font-size: 15px; margin: 18px 0 4px; }
.notice { border-left: 4px solid #e69f00; background: #fdf6e7; padding: 10px 16px; margin: 16px 0; }
.notice ul { margin: 4px 0 0; padding-left: 20px; }
.notice li, td.text { overflow-wrap: anywhere; }
td.text { white-space: normal; min-width: 120px; }
details > summary { cursor: pointer; color: #1f5fa8; margin: 6px 0; }
.better { color: #1a7f37; }
.worse { color: #c62828; }
mark { background: #fbe8bd; color: inherit; padding: 1px 3px; border-radius: 2px; }
figure { margin: 18px 0 0; }
figcaption { color: #555; font-size: 13.5px; margin-bottom: 4px; }
img { max-width: 100%; height: auto; }
@media (max-width: 640px) {
  body { padding: 16px 14px 40px; }
  .facts { gap: 8px 24px; }
}
@media print {
  body { max-width: none; padding: 0; }
  nav, .modebar { display: none; }
  figure, tr, .chart { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .wide { overflow: visible; }
  img { max-height: 230mm; }
  mark, .bar, .bar i { print-color-adjust: exact; }
}
"""


def page(title: str, body: str, *, compiles: bool = False) -> str:
    """Return the whole page.

    A Content-Security-Policy allows the two scripts of this module by their hashes and forbids all
    others and the network: https://www.w3.org/TR/CSP3/.

    Args:
        title: text.
        body: HTML.
        compiles: a chart of it compiles its drawing, as parallel coordinates do; without eval
            Plotly would tell the reader that the browser has no WebGL.
    """
    plotly = get_plotlyjs()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(plotly)} {_hash(_START)}" + (" 'unsafe-eval'" if compiles else ""),
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
        f'<div id="{name}-chart" class="chart"></div>\n'
        f'<script type="application/json" data-chart="{name}-chart">{data}</script>'
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and values, texts, as a line of large numbers."""
    cells = (
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in pairs
    )
    return f'<dl class="facts">{"".join(cells)}</dl>'


def style(figure: go.Figure, *, height: int) -> go.Figure:
    """Give a chart the colours, fonts and margins that all have.

    Args:
        figure: is changed, and returned.
        height: pixels.
    """
    return figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"t": 40, "l": 60, "r": 20, "b": 50},
        font={"family": "system-ui, sans-serif", "color": GREY, "size": 12},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Sequence[int],
    texts: Sequence[int] = (),
) -> str:
    """Return a table that scrolls sideways where it is too wide.

    Args:
        header: texts; none is shown where all are empty.
        rows: cells as HTML.
        numbers: columns set flush right.
        texts: columns whose cells may be long, and are broken into lines.
    """
    kinds = {**dict.fromkeys(numbers, "number"), **dict.fromkeys(texts, "text")}
    classes = [f'class="{kinds[k]}"' if k in kinds else "" for k in range(len(header))]
    head = "".join(
        f"<th {s}>{html.escape(text).replace('_', '_<wbr>')}</th>"
        for s, text in zip(classes, header, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td {s}>{c}</td>" for s, c in zip(classes, row, strict=True)) + "</tr>\n"
        for row in rows
    )
    first = f"<tr>{head}</tr>\n" if any(header) else ""
    return f'<div class="wide"><table>\n{first}{body}</table></div>'


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
