"""Plots as marks of an inline SVG: no library in the page, no script, colours from the style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RUN_COLOURS = 10
"""Colours of runs in the style sheet; they come again where there are more runs."""

WIDE, HIGH = 400.0, 26.0
"""Size of a strip, in its own units."""

_PLOT_WIDE, _PLOT_HIGH = 340.0, 216.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 12.0, 12.0, 38.0
_ROOM = 0.04
"""Share of a range that is left free at its ends."""

_DOT = 2.7
_SCATTER = 0.618034
"""Share of the height by which a dot lies above the one before it, around the corner; neighbours stay apart."""

MOST_DOTS = 1000
"""Dots of a strip; of more values, as many that lie evenly among the sorted ones are drawn."""


@dataclass(frozen=True)
class Mark:
    """An element of SVG.

    Args:
        tag: Its name.
        attributes: Its attributes; classes give the colours.
        text: What a text says.
    """

    tag: str
    attributes: Mapping[str, str]
    text: str = ""


@dataclass(frozen=True)
class Drawing:
    """Marks on a ground of a size of its own.

    Args:
        wide: Width in its own units.
        high: Height.
        marks: What is drawn, from back to front.
        words: The same in words, for those who do not see it.
        title: Heading; empty without one.
    """

    wide: float
    high: float
    marks: tuple[Mark, ...]
    words: str = ""
    title: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a plot.

    Args:
        label: What it is of.
        points: (x, y), finite, in order.
        run: Number of the run, which gives the colour.
        style: Further class: ``dashed`` or ``dotted``; empty for a whole line.
    """

    label: str
    points: Sequence[tuple[float, float]]
    run: int = 0
    style: str = ""


@dataclass(frozen=True)
class Axis:
    """A range of values along a side of a plot.

    Args:
        low: Value at its start.
        high: Value at its end.
        name: What it measures.
        ticks: Values that are marked.
    """

    low: float
    high: float
    name: str = ""
    ticks: tuple[float, ...] = ()

    def place(self, value: float) -> float:
        """Place of a value as a share of the axis, from 0 to 1."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


def draw_dots(values: Sequence[float], axis: Axis, words: str) -> Drawing:
    """One dot a value, with a box from the lower to the upper quartile and a bar at the median."""
    ordered = sorted(values)
    shown = ordered
    if len(ordered) > MOST_DOTS:
        shown = [ordered[round(i * (len(ordered) - 1) / (MOST_DOTS - 1))] for i in range(MOST_DOTS)]
    marks = _grid()
    lower, median, upper = (quantile(ordered, share) for share in (0.25, 0.5, 0.75))
    marks += [_box("box", axis, lower, upper, 3, HIGH - 6)]
    for i, value in enumerate(shown):
        y = 5 + (HIGH - 10) * ((i * _SCATTER) % 1.0)
        marks.append(Mark("circle", {"class": "dot", "cx": _n(WIDE * axis.place(value)), "cy": _n(y), "r": _n(_DOT)}))
    marks.append(_upright("median", axis, median, 2, HIGH - 2))
    return Drawing(WIDE, HIGH, tuple(marks), words)


def draw_interval(
    mean: float, low: float | None, high: float | None, axis: Axis, words: str, zero: bool = False
) -> Drawing:
    """A mean as a dot and its interval as a bar; with ``zero``, a line where nothing differs."""
    marks = _grid()
    if zero:
        marks.append(_upright("zero", axis, 0.0, 0, HIGH))
    if low is not None and high is not None:
        marks.append(_box("bar", axis, low, high, HIGH / 2 - 2, 4))
    x = _n(WIDE * axis.place(mean))
    marks.append(Mark("circle", {"class": "mean", "cx": x, "cy": _n(HIGH / 2), "r": "5"}))
    return Drawing(WIDE, HIGH, tuple(marks), words)


def draw_bar(value: float, axis: Axis, words: str) -> Drawing:
    """A bar from 0 to a value."""
    return Drawing(WIDE, HIGH, (*_grid(), _box("bar", axis, 0.0, value, 6, HIGH - 12)), words)


def draw_lines(title: str, lines: Sequence[Line], x_name: str, y_range: tuple[float, float] | None = None) -> Drawing:
    """Lines over one axis, with ticks and their names.

    Args:
        title: What is drawn.
        lines: At least one, each with at least one point.
        x_name: What the x axis measures.
        y_range: Range of the y axis; that of the values when None.
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    across, up = _axis(min(xs), max(xs), x_name), _axis(*(y_range or (min(ys), max(ys))))
    marks = [*_frame(across, up)]
    for line in lines:
        places = [(_x(across, x), _y(up, y)) for x, y in line.points]
        style = f"line run-{line.run % RUN_COLOURS} {line.style}".strip()
        if len(places) == 1:
            marks.append(Mark("circle", {"class": style, "cx": _n(places[0][0]), "cy": _n(places[0][1]), "r": "3"}))
        else:
            marks.append(Mark("polyline", {"class": style, "points": " ".join(f"{_n(x)},{_n(y)}" for x, y in places)}))
    ends = "; ".join(
        f"{line.label}: {line.points[0][1]:.3g} at {line.points[0][0]:.4g}, "
        f"{line.points[-1][1]:.3g} at {line.points[-1][0]:.4g}"
        for line in lines
    )
    return Drawing(_PLOT_WIDE, _PLOT_HIGH, tuple(marks), f"{title} over {x_name}. {ends}.", title)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Quantile of sorted values, between neighbours where it falls between them."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _axis(low: float, high: float, name: str = "") -> Axis:
    """An axis with round ticks that holds two values."""
    from matplotlib.ticker import MaxNLocator

    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        pad = abs(low) / 10 or 0.5
        low, high = low - pad, high + pad
    room = _ROOM * (high - low)
    low, high = low - room, high + room
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return Axis(low, high, name, tuple(float(tick) for tick in ticks if low <= tick <= high))


def _frame(across: Axis, up: Axis) -> list[Mark]:
    left, right, bottom = _LEFT, _PLOT_WIDE - _RIGHT, _PLOT_HIGH - _BOTTOM
    marks = []
    for tick in up.ticks:
        y = _n(_y(up, tick))
        marks.append(Mark("line", {"class": "grid", "x1": _n(left), "x2": _n(right), "y1": y, "y2": y}))
        label = {"class": "tick end", "x": _n(left - 6), "y": _n(_y(up, tick) + 4)}
        marks.append(Mark("text", label, _show(tick)))
    marks.append(Mark("line", {"class": "axis", "x1": _n(left), "x2": _n(right), "y1": _n(bottom), "y2": _n(bottom)}))
    for tick in across.ticks:
        x = _n(_x(across, tick))
        marks.append(Mark("line", {"class": "axis", "x1": x, "x2": x, "y1": _n(bottom), "y2": _n(bottom + 4)}))
        marks.append(Mark("text", {"class": "tick middle", "x": x, "y": _n(bottom + 17)}, _show(tick)))
    name = {"class": "tick middle", "x": _n((left + right) / 2), "y": _n(_PLOT_HIGH - 5)}
    return [*marks, Mark("text", name, across.name)]


def _x(axis: Axis, value: float) -> float:
    return _LEFT + (_PLOT_WIDE - _LEFT - _RIGHT) * axis.place(value)


def _y(axis: Axis, value: float) -> float:
    return _PLOT_HIGH - _BOTTOM - (_PLOT_HIGH - _TOP - _BOTTOM) * axis.place(value)


def _grid() -> list[Mark]:
    """The five ticks of a strip."""
    places = [_n(WIDE * i / 4) for i in range(5)]
    return [Mark("line", {"class": "grid", "x1": x, "x2": x, "y1": "0", "y2": _n(HIGH)}) for x in places]


def _box(name: str, axis: Axis, low: float, high: float, y: float, tall: float) -> Mark:
    start, stop = sorted((WIDE * axis.place(low), WIDE * axis.place(high)))
    place = {"x": _n(start), "y": _n(y), "width": _n(max(stop - start, 1.0)), "height": _n(tall), "rx": "1.5"}
    return Mark("rect", {"class": name, **place})


def _upright(name: str, axis: Axis, value: float, top: float, bottom: float) -> Mark:
    x = _n(WIDE * axis.place(value))
    return Mark("line", {"class": name, "x1": x, "x2": x, "y1": _n(top), "y2": _n(bottom)})


def _show(tick: float) -> str:
    return f"{tick:.6g}".replace("-", "\N{MINUS SIGN}") if abs(tick) > 1e-12 else "0"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
