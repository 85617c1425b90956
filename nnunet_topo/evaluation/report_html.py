"""The bare HTML of a report: tables, the style sheet, the page around it all."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

STYLE = """
:root { --ink: #1b2127; --soft: #55616c; --line: #d6dbe0; --wash: #f2f4f6; --accent: #0072B2 }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink); background: #fff;
  max-width: 1160px; margin: 0 auto; padding: 1rem 1rem 4rem; overflow-wrap: anywhere }
h1 { font-size: 1.55rem; line-height: 1.25; margin: .6rem 0 .3rem }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .5rem; border-top: 2px solid var(--ink) }
h3 { font-size: 1.08rem; margin: 1.8rem 0 .4rem }
h4 { font-size: 1rem; margin: 1.3rem 0 .3rem }
p { margin: .35rem 0 .7rem; max-width: 75ch }
small, .note, .legend, figcaption { color: var(--soft) }
figcaption b, .case figcaption { color: var(--ink) }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .6rem 0 1rem }
a { color: var(--accent) }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .7rem; margin: 1rem 0 }
.card { background: var(--wash); border-radius: 8px; padding: .6rem .8rem }
.card b { display: block; font-size: 1.35rem; line-height: 1.25; font-variant-numeric: tabular-nums }
.warning { border-left: 4px solid #D55E00; background: #fdf3ec; padding: .5rem .8rem; max-width: none }
.scroll { overflow-x: auto; margin: .5rem 0 }
table { border-collapse: collapse; font-size: .9rem }
caption { text-align: left; color: var(--soft); padding: .2rem 0 }
th, td { padding: .28rem .65rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: normal }
th { border-bottom: 2px solid var(--ink); vertical-align: bottom }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums } td.number { white-space: nowrap }
th button { all: unset; cursor: pointer; font-weight: 700; text-decoration: underline dotted }
th button:focus-visible { outline: 2px solid var(--accent) }
tr.mean td { font-weight: 650; background: var(--wash) }
dl.facts { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .2rem 1rem; margin: .6rem 0 }
dl.facts dt { color: var(--soft) } dl.facts dd { margin: 0 }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 310px), 1fr)); gap: 1rem 1.4rem }
.chart, .panels figure { margin: 0 }
.chart { display: flex; flex-direction: column; justify-content: flex-end }
.chart > svg { width: 100%; max-width: 560px; height: auto; font: 11px system-ui, sans-serif }
.chart text { fill: var(--soft) }
.chart figcaption { font-size: .88rem; line-height: 1.35 }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; font-size: .82rem }
.key { width: 22px; height: 10px; margin-right: .25rem }
.curve { fill: none; stroke-width: 1.7; stroke-linejoin: round; stroke-linecap: round }
.grid { stroke: #e2e6ea; stroke-width: 1; fill: none } .phase { fill: #e9eef4 }
.event { stroke: #D55E00; stroke-width: 2.2 } .even { stroke: #6e6e6e; stroke-dasharray: 4 3; fill: none }
.dot { fill: #0072B2; fill-opacity: .75; stroke: #fff }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(47%, 215px), 1fr)); gap: .6rem;
  align-items: start; margin: .5rem 0 }
.panels.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)) }
.panels svg { width: 100%; height: auto; border: 1px solid var(--line); background: #fff; display: block }
.panels figcaption { font-size: .86rem; line-height: 1.3; margin-bottom: .2rem }
.halo, .mark { fill: none; stroke-linecap: round; stroke-linejoin: round }
.halo { stroke: #fff; stroke-width: 2.8 } .mark { stroke: #111; stroke-width: 1.15 }
.panels text { font: 700 6.5px system-ui, sans-serif } .mark text { fill: #111; stroke: none }
.badge { display: inline-block; min-width: 1.5em; text-align: center; border-radius: 1em; background: var(--ink);
  color: #fff; font-size: .85em; margin-right: .35em }
.swatches { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; padding: 0; list-style: none; font-size: .92rem }
.swatches i { display: inline-block; width: 1.1em; height: 1.1em; margin-right: .4em; vertical-align: -.15em;
  border: 1px solid #8884 }
.error { margin: 0 0 1.5rem }
details { margin: .6rem 0 } summary { cursor: pointer; font-weight: 600 }
@media (max-width: 520px) { body { padding: .6rem .7rem 3rem } th, td { padding: .25rem .4rem }
  dl.facts { grid-template-columns: 1fr; gap: 0 } dl.facts dd { margin-bottom: .45rem } }
@media print { details > * { display: block } nav { display: none } }
"""

# Without it the table stands as it was written: worst cases first.
SCRIPT = """
for (const head of document.querySelectorAll("table.sortable th")) {
  const button = document.createElement("button");
  button.textContent = head.textContent;
  button.title = "sort by this column";
  head.replaceChildren(button);
  button.onclick = () => {
    const body = head.closest("table").tBodies[0], column = head.cellIndex, up = head.ariaSort !== "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.ariaSort = up ? "ascending" : "descending";
    const value = row => {
      const found = row.cells[column];
      return found.dataset.v === undefined ? found.textContent : +found.dataset.v;
    };
    const order = (a, b) => a === b ? 0 : Number.isNaN(a) ? 1 : Number.isNaN(b) ? -1 : (a < b ? -1 : 1) * (up ? 1 : -1);
    [...body.rows].sort((a, b) => order(value(a), value(b))).forEach(row => body.append(row));
  };
}
"""


MISSING = "\N{EN DASH}"


def cell(value: object, number: float | None = None) -> str:
    """A `td`; numbers stand at the right and can be sorted by.

    Args:
        value: text, or a number; NaN becomes a dash.
        number: to sort a text by.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value) if number is None else number
        value = MISSING if math.isnan(value) else value if isinstance(value, int) else significant(value)
    text = html.escape(str(value))
    return f"<td>{text}</td>" if number is None else f'<td class="number" data-v="{number:.6g}">{text}</td>'


def significant(value: float) -> str:
    """A number for people: three digits that matter, whole numbers whole."""
    if not math.isfinite(value):
        return MISSING
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.3f}" if 0.01 <= abs(value) < 1 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, mean: Sequence[str] = (), sortable: bool = False
) -> str:
    """A table in a box of its own that scrolls where it is too wide.

    Args:
        headings: plain text.
        rows: of `cell`s.
        mean: of `cell`s, stays below the others when they are sorted.
        sortable: by a click on a heading.
    """
    listed = [list(row) for row in rows]
    numeric = [
        bool(listed) and all('class="number"' in row[column] for row in listed) for column in range(len(headings))
    ]
    head = "".join(
        f'<th scope="col"{" class=number" if right else ""}>{html.escape(text)}</th>'
        for text, right in zip(headings, numeric, strict=True)
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in listed)
    foot = f'<tfoot><tr class="mean">{"".join(mean)}</tr></tfoot>' if mean else ""
    kind = ' class="sortable"' if sortable else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table></div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of what is what; empty values are left out."""
    items = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in pairs if value)
    return f'<dl class="facts">{items}</dl>'


def card(value: str, meaning: str) -> str:
    """A number that stands out."""
    return f'<div class="card"><b>{html.escape(value)}</b>{html.escape(meaning)}</div>'


def page(title: str, sections: Sequence[tuple[str, str, str]], footer: str) -> str:
    """The whole document; it names no other file and no address.

    Args:
        title: of the page.
        sections: (identifier, heading, HTML); those without content are left out. The first has no heading.
        footer: HTML.
    """
    shown = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{name}">{html.escape(heading)}</a>' for name, heading, _ in shown[1:])
    body = "".join(
        f'<section id="{name}"><h2>{html.escape(heading)}</h2>{content}</section>'
        for name, heading, content in shown[1:]
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>{html.escape(title)}</h1>{shown[0][2]}"
        f"<nav>{links}</nav>\n{body}\n<footer class=note>{footer}</footer><script>{SCRIPT}</script></body></html>\n"
    )
