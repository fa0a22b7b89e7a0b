"""Draws a speed table as an SVG picture: rates as bars with every run as a dot, and below them the figures' bars.

Made of the committed JSON alone, so that the same JSON gives the same bytes. Readable on light and on dark ground.
"""

import math
import re
import statistics
from collections.abc import Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

import msgspec

from bench.speed.configs import OFF, ON

_WIDTH: Final = 900
_LEFT: Final = 330
_RIGHT: Final = 150
_PLOT: Final = _WIDTH - _LEFT - _RIGHT
_ROW: Final = 20
_BAR: Final = 13
_MOST_OF_BAR: Final = 2.0
_MOST_TICKS: Final = 8
_BOUND: Final = re.compile(r"^(>=|<=) ([\d.e+-]+)$")
_STYLE: Final = """
  .ground { fill: #ffffff } text { fill: #1f2328; font: 12px sans-serif } .dim { fill: #59636e }
  .title { font-size: 16px; font-weight: bold } .group { font-weight: bold } .end { text-anchor: end }
  .middle { text-anchor: middle } .grid { stroke: #d1d9e0 } .bound { stroke: #cf222e; stroke-width: 2 }
  .boundtext { fill: #cf222e } .on { fill: #0969da } .off { fill: #80b3ee } .other { fill: #8c959f }
  .missed { fill: #cf222e } .dot { fill: #1f2328; opacity: 0.55 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 } .dim { fill: #9198a1 } .grid { stroke: #3d444d }
    .bound { stroke: #ff7b72 } .boundtext { fill: #ff7b72 } .on { fill: #4493f8 } .off { fill: #1f4f8f }
    .other { fill: #6e7681 } .missed { fill: #ff7b72 } .dot { fill: #e6edf3 }
  }
"""


class Bar(msgspec.Struct, frozen=True):
    """One server's rates: the median as the bar's length, every run as a dot."""

    label: str
    median: float
    runs: list[float]


class Group(msgspec.Struct, frozen=True):
    """Bars that belong together."""

    title: str
    bars: list[Bar]


class Held(msgspec.Struct, frozen=True):
    """A figure and the bound that it is held against."""

    name: str
    value: float
    at_least: bool
    bound: float

    @property
    def share(self) -> float:
        """How much of the bound is reached: 1 and more is enough."""
        if not self.value or not self.bound:
            return _MOST_OF_BAR
        return self.value / self.bound if self.at_least else self.bound / self.value

    @property
    def words(self) -> str:
        """The value with its bound."""
        return f"{_short(self.value)} (bar {'≥' if self.at_least else '≤'} {_short(self.bound)})"


def picture(title: str, under: str, groups: Sequence[Group], held: Sequence[Held], *, linear: bool = False) -> str:
    """Return the picture as SVG text; the axis is logarithmic unless `linear`."""
    canvas = _Canvas()
    canvas.text(20, "title", title, step=18)
    canvas.text(20, "dim", under, step=26)
    _rates(canvas, groups, _Linear(groups) if linear else _Logarithmic(groups))
    if held:
        canvas.y += 24
        canvas.text(20, "group", "Figures against their bars (red line: the bar; longer is better)", step=10)
        _figures(canvas, held)
    return canvas.svg()


def groups_of(document: dict[str, Any], clients: int) -> list[Group]:
    """Return the rates of a table with so many clients; in each group the gateway's come first."""
    return [
        Group(
            f"{cell['workload']}",
            sorted((_bar(name, runs) for name, runs in cell["runs"].items()), key=lambda bar: _place(bar.label)),
        )
        for cell in document["notes"]["table"]
        if cell["clients"] == clients
    ]


def held_of(document: dict[str, Any]) -> list[Held]:
    """Return the figures of a table that have a numeric bound and are more than a condition of the run."""
    found = []
    for figure in document["figures"]:
        bound = _BOUND.match(figure["bar"])
        if bound and not figure["name"].startswith(("load's share", "cores taken", "answers by", "copies that")):
            value = math.nan if figure["value"] is None else float(figure["value"])
            found.append(Held(figure["name"], value, bound[1] == ">=", float(bound[2])))
    return found


class _Canvas:
    """Elements from top to bottom; `y` is where the next goes."""

    def __init__(self) -> None:
        self.y = 30
        self._elements: list[str] = []

    def text(self, x: float, kind: str, words: str, *, step: int = 0, y: float | None = None) -> None:
        """Write words."""
        at = self.y if y is None else y
        self._elements.append(f'<text class="{kind}" x="{x:.1f}" y="{at:.1f}">{escape(words)}</text>')
        self.y += step

    def line(self, kind: str, x: float, top: float, bottom: float) -> None:
        """Draw a line downwards."""
        self._elements.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')

    def bar(self, kind: str, width: float) -> None:
        """Draw a bar from the left of the plot."""
        self._elements.append(
            f'<rect class="{kind}" x="{_LEFT}" y="{self.y - _BAR + 2:.1f}" width="{width:.1f}" height="{_BAR}"/>'
        )

    def dot(self, x: float) -> None:
        """Draw a dot in the middle of the bar."""
        self._elements.append(f'<circle class="dot" cx="{x:.1f}" cy="{self.y - _BAR / 2 + 2:.1f}" r="2"/>')

    def svg(self) -> str:
        """Return the whole."""
        height = self.y + 20
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
            f'height="{height}" role="img">\n<style>{_STYLE}</style>\n'
            f'<rect class="ground" width="{_WIDTH}" height="{height}"/>\n' + "\n".join(self._elements) + "\n</svg>\n"
        )


class _Logarithmic:
    """An axis from 10 on by powers of ten, for rates that differ a hundredfold."""

    words = "requests a second (logarithmic); bar: median, dots: all runs"

    def __init__(self, groups: Sequence[Group]) -> None:
        self._decades = max(2, math.ceil(math.log10(_most(groups))))
        self.ticks = [10**power for power in range(1, self._decades + 1)]

    def width(self, rate: float) -> float:
        """Return how far a rate is from the left."""
        return max(0.0, (math.log10(max(rate, 10)) - 1) / (self._decades - 1) * _PLOT)


class _Linear:
    """An axis from 0 on."""

    words = "requests a second; bar: median, dots: all runs"

    def __init__(self, groups: Sequence[Group]) -> None:
        most = _most(groups)
        step: int = next(
            size * 10**power for power in range(12) for size in (1, 2, 5) if most / (size * 10**power) <= _MOST_TICKS
        )
        self.ticks: list[int] = [step * number for number in range(math.ceil(most / step) + 1)]

    def width(self, rate: float) -> float:
        """Return how far a rate is from the left."""
        return rate * _PLOT / self.ticks[-1]


def _most(groups: Sequence[Group]) -> float:
    return max(rate for group in groups for bar in group.bars for rate in (bar.median, *bar.runs))


def _rates(canvas: _Canvas, groups: Sequence[Group], axis: _Logarithmic | _Linear) -> None:
    rows = sum(len(group.bars) for group in groups)
    bottom = canvas.y + (rows + len(groups)) * _ROW + 4 * len(groups)
    for tick in axis.ticks:
        x = _LEFT + axis.width(tick)
        canvas.line("grid", x, canvas.y - 8, bottom - 8)
        canvas.text(x, "dim middle", f"{tick:,}", y=bottom + 6)
    for group in groups:
        canvas.y += 4
        canvas.text(20, "group", group.title, step=_ROW)
        for bar in group.bars:
            canvas.text(_LEFT - 8, "end", bar.label)
            canvas.bar(_kind(bar.label), axis.width(bar.median))
            for rate in bar.runs:
                canvas.dot(_LEFT + axis.width(rate))
            canvas.text(_WIDTH - 20, "end", f"{bar.median:,.0f}/s", step=_ROW)
    canvas.y = bottom + 24
    canvas.text(_LEFT + _PLOT / 2, "dim middle", axis.words)


def _figures(canvas: _Canvas, held: Sequence[Held]) -> None:
    one = _LEFT + _PLOT / _MOST_OF_BAR
    top = canvas.y
    for figure in held:
        canvas.y += 16
        canvas.text(20, "", figure.name, step=17)
        share = 0.0 if math.isnan(figure.share) else min(figure.share, _MOST_OF_BAR)
        canvas.bar("on" if share >= 1 else "missed", share / _MOST_OF_BAR * _PLOT)
        canvas.text(_LEFT - 8, "end dim", figure.words)
    canvas.line("bound", one, top + 4, canvas.y + 8)
    canvas.y += 22
    canvas.text(one, "boundtext middle", "the bar")
    canvas.text(_LEFT, "dim middle", "0")
    canvas.text(_LEFT + _PLOT, "dim middle", "twice the bar or more")


def _bar(name: str, runs: Sequence[dict[str, Any]]) -> Bar:
    rates = [run["rate"] for run in runs]
    return Bar(name, statistics.median(rates), rates)


def _place(label: str) -> tuple[int, str]:
    """Put the gateway first: on, off, then others in the order of their names."""
    return (0, "") if label == ON else (1, "") if label == OFF else (2, label)


def _kind(label: str) -> str:
    if label.endswith(ON) or label.startswith(ON):
        return "on"
    return "off" if OFF in label else "other"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
