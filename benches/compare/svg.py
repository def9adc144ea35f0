"""Plots as SVG, drawn by hand: bars on a logarithmic scale, and lines over time.

Only what the comparison needs. Text sizes and colours are chosen to be readable on light and dark pages alike.
"""

import math
from xml.sax.saxutils import escape

COLOURS = ["#2f7ed8", "#e8743b", "#19a979", "#945ecf", "#bf399e", "#6c8893"]
GREY = "#888888"
FONT = "font-family='sans-serif'"


def text(x, y, content, anchor="start", size=12, colour=GREY, more=""):
    return (f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size}' fill='{colour}' {FONT} {more}>"
            f"{escape(content)}</text>")


def short(value):
    """A number in at most four characters or so."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def nice_step(most, count):
    """The smallest of 1, 2 or 5 times a power of ten that goes into `most` at most so often."""
    power = 10 ** (math.floor(math.log10(most)) - 1)
    return next(power * factor for factor in (1, 2, 5, 10, 20, 50) if most / (power * factor) <= count)


def document(width, height, parts):
    return (f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' "
            f"height='{height}'>\n" + "\n".join(parts) + "\n</svg>\n")


def bars(title, unit, groups, systems):
    """Horizontal bars, one group for each load.

    groups: [(name, {system: value})]; systems: the order and the colours.
    """
    width, left, right, bar, gap = 860, 250, 90, 16, 14
    values = [value for _, row in groups for value in row.values() if value > 0]
    if not values:
        return document(width, 60, [text(10, 30, f"{title}: nothing was measured", size=14)])
    low, high = 10 ** math.floor(math.log10(min(values)) - 0.3), max(values)
    if low >= high:
        high = low * 10
    scale = (width - left - right) / (math.log10(high) - math.log10(low))
    at = lambda value: left + (math.log10(max(value, low)) - math.log10(low)) * scale
    parts = [text(10, 22, f"{title} ({unit}, logarithmic)", size=15)]
    x = 10
    for index, system in enumerate(systems):
        parts.append(f"<rect x='{x}' y='34' width='12' height='12' fill='{COLOURS[index % len(COLOURS)]}'/>")
        parts.append(text(x + 17, 45, system))
        x += 40 + 7 * len(system)
    y = 64
    top = y
    for name, row in groups:
        present = [(index, system) for index, system in enumerate(systems) if system in row]
        parts.append(text(left - 10, y + len(present) * bar / 2 + 4, name, "end"))
        for index, system in present:
            value = row[system]
            parts.append(f"<rect x='{left}' y='{y}' width='{max(at(value) - left, 1):.1f}' height='{bar - 2}' "
                         f"fill='{COLOURS[index % len(COLOURS)]}'/>")
            parts.append(text(at(value) + 6, y + bar - 4, short(value)))
            y += bar
        y += gap
    tick = math.ceil(math.log10(low))
    lines = []
    while 10 ** tick <= high:
        x = at(10 ** tick)
        lines.append(f"<line x1='{x:.1f}' y1='{top - 6}' x2='{x:.1f}' y2='{y - gap}' stroke='{GREY}' "
                     f"stroke-opacity='0.35'/>")
        lines.append(text(x, y + 4, short(10 ** tick), "middle", 11))
        tick += 1
    return document(width, y + 16, lines + parts)


def lines(title, x_unit, y_unit, series, mark=None):
    """Lines over time. series: [(name, [(x, y)])]; mark: (x, words), a vertical line."""
    width, height, left, right, top, bottom = 860, 360, 70, 20, 60, 46
    points = [point for _, curve in series for point in curve]
    if not points:
        return document(width, 60, [text(10, 30, f"{title}: nothing was measured", size=14)])
    x_max = max(x for x, _ in points) or 1
    y_max = max(y for _, y in points) or 1
    step = nice_step(y_max, 6)
    at = lambda x, y: (left + x / x_max * (width - left - right),
                       height - bottom - y / (y_max * 1.05) * (height - top - bottom))
    parts = [text(10, 22, title, size=15), text(10, 42, y_unit, size=11)]
    value = 0.0
    while value <= y_max:
        _, y = at(0, value)
        parts.append(f"<line x1='{left}' y1='{y:.1f}' x2='{width - right}' y2='{y:.1f}' stroke='{GREY}' "
                     f"stroke-opacity='0.35'/>")
        parts.append(text(left - 6, y + 4, short(value) if value else "0", "end", 11))
        value += step
    tick, number = nice_step(x_max, 10), 0
    while tick * number <= x_max * 1.001:
        x, y = at(tick * number, 0)
        parts.append(text(x, y + 16, f"{tick * number:.3g}", "middle", 11))
        number += 1
    parts.append(text(width - right, height - 8, x_unit, "end", 11))
    legend = left + 40
    for index, (name, curve) in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{at(x, y)[0]:.1f},{at(x, y)[1]:.1f}" for x, y in curve)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.5'/>")
        parts.append(f"<rect x='{legend}' y='34' width='12' height='12' fill='{colour}'/>")
        parts.append(text(legend + 17, 45, name))
        legend += 40 + 7 * len(name)
    if mark:
        x, y = at(mark[0], 0)
        parts.append(f"<line x1='{x:.1f}' y1='{top}' x2='{x:.1f}' y2='{y:.1f}' stroke='{GREY}' "
                     f"stroke-dasharray='4 3'/>")
        parts.append(text(x + 5, top + 10, mark[1], size=11))
    return document(width, height, parts)
