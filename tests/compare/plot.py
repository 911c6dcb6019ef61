"""Small multiples as SVG, with the standard library alone: one panel for each arm, its seeds thin, its mean thick, the
means of the other arms grey behind. Accuracy is drawn by the logarithm of what is wrong, so that 98 and 99.8 % are
apart. Colours follow the reader's preference for a light or dark page, on a transparent ground.
"""
import html
import math

COLUMNS, WIDTH, HEIGHT = 3, 236, 150           # of a panel's plotting area
LEFT, TOP, GAP_X, GAP_Y, BOTTOM = 58, 30, 20, 46, 44
WRONG_MIN = 0.0005                              # one of 2,000: what is below is drawn there
TICKS_Y = (0, 0.5, 0.9, 0.99, 0.999)
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #57606a }
  .title { font-weight: 600; fill: #1f2328 }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .other { stroke: #afb8c1; stroke-width: 1; fill: none }
  .seed { stroke: #0969da; stroke-width: 1; fill: none; opacity: .55 }
  .mean { stroke: #0969da; stroke-width: 2.5; fill: none; stroke-linejoin: round }
  .dot { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .title { fill: #f0f6fc } .grid { stroke: #30363d } .other { stroke: #59636e }
    .seed, .mean { stroke: #58a6ff } .dot { fill: #58a6ff }
  }
"""


def height_of(accuracy):
    """From the panel's top, in points."""
    depth = math.log10(max(1 - accuracy, WRONG_MIN)) - math.log10(WRONG_MIN)
    return HEIGHT * depth / -math.log10(WRONG_MIN)


def ticks_of(most):
    """At most six round numbers from 0 to the most."""
    step = next(s for power in range(-3, 12) for s in (10 ** power, 2 * 10 ** power, 5 * 10 ** power) if most / s <= 5)
    return [step * i for i in range(int(most / step) + 1)]


def label(value):
    return f"{value / 1000:g} k" if value >= 1000 else f"{value:g}"


class Panel:
    """One panel at its place; x is the column of a point."""

    def __init__(self, number, x, most):
        self.left = LEFT + number % COLUMNS * (WIDTH + GAP_X)
        self.top = TOP + number // COLUMNS * (HEIGHT + GAP_Y)
        self.x, self.most = x, most

    def place(self, point):
        return self.left + WIDTH * point[self.x] / self.most, self.top + height_of(point[2])

    def line(self, points, kind):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self.place, points))
        return f'<polyline class="{kind}" points="{path}"/>\n'

    def frame(self, title, first, last):
        out = f'<text class="title" x="{self.left}" y="{self.top - 10}">{html.escape(title)}</text>\n'
        for share in TICKS_Y:
            y = self.top + height_of(share)
            out += f'<line class="grid" x1="{self.left}" x2="{self.left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>\n'
            if first:
                out += f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * share:g} %</text>\n'
        for tick in ticks_of(self.most) if last else []:
            x = self.left + WIDTH * tick / self.most
            out += f'<text x="{x:.1f}" y="{self.top + HEIGHT + 16}" text-anchor="middle">{label(tick)}</text>\n'
        return out


def panels(arms, x, unit):
    """SVG of (title, curves by seed, mean curve) of each arm; points are [samples, seconds, accuracy], x one of the
    first two."""
    most = max((point[x] for _, curves, _ in arms for curve in curves for point in curve), default=0) or 1
    rows = max(1, math.ceil(len(arms) / COLUMNS))
    width, height = LEFT + COLUMNS * (WIDTH + GAP_X), TOP + rows * (HEIGHT + GAP_Y) - GAP_Y + BOTTOM
    out = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           f'role="img">\n<title>Accuracy on held-out problems against {unit}</title>\n<style>{STYLE}</style>\n')
    for number, (title, curves, mean) in enumerate(arms):
        panel = Panel(number, x, most)
        out += panel.frame(title, number % COLUMNS == 0, number + COLUMNS >= len(arms))
        out += "".join(panel.line(other, "other") for _, _, other in arms if other is not mean)
        out += "".join(panel.line(curve, "seed") for curve in curves) + panel.line(mean, "mean")
        out += '<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3.5"/>\n'.format(*panel.place(mean[-1]))
    return out + f'<text x="{LEFT}" y="{height - 8}">{unit}; accuracy by the logarithm of the share that is wrong</text>\n</svg>\n'
