"""Draw ``docs/images/architecture.png``: the rooms of the package on their floors, and who imports whom.

    python docs/make_architecture_picture.py

Everything is read from the source. An import that follows from others is not drawn; one that runs against the floors is
drawn in red.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.floors import FLOORS, LEVEL, PACKAGE, imported_rooms, module_of, room_of  # noqa: E402

PICTURE = ROOT / "docs" / "images" / "architecture.png"
WIDTH, HEIGHT = 2.0, 0.62
"""Size of a box, in inches."""
GAP, RISE = 0.62, 1.18
"""Room between two boxes of a floor, and from one floor to the next."""
LANE = 0.12
"""Distance of two arrows that run through one gap."""
LEGAL, ILLEGAL = "#5b7a99", "#c0392b"

Edge = tuple[str, str]
Point = tuple[float, float]


@dataclass
class House:
    """What the source says: lines of each room, and which room imports which."""

    lines: dict[str, int]
    imports: set[Edge]

    def against(self) -> set[Edge]:
        """Imports of what does not lie below."""
        return {(room, other) for room, other in self.imports if LEVEL[room] <= LEVEL[other]}

    def drawn(self) -> list[Edge]:
        """Imports that do not follow from others, and all that run against the floors."""
        down = self.imports - self.against()
        below: dict[str, set[str]] = {}
        for room in sorted(self.lines, key=LEVEL.__getitem__):
            own = {other for first, other in down if first == room}
            below[room] = own.union(*(below[other] for other in own))
        needed = {
            (room, other)
            for room, other in down
            if not any(other in below[between] for first, between in down if first == room)
        }
        return sorted(needed | self.against())


def read_house() -> House:
    """Read every file of the package."""
    lines: dict[str, int] = defaultdict(int)
    imports: set[Edge] = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        room = room_of(module_of(path))
        if room:
            lines[room] += len(path.read_text(encoding="utf-8").splitlines())
            imports |= {(room, other) for other in imported_rooms(path)}
    return House(dict(lines), imports)


def place_rooms(house: House) -> dict[str, Point]:
    """Middle of every box; floors without a room take no height."""
    floors = [[room for room in floor if room in house.lines] for floor in FLOORS]
    places = {}
    for height, floor in enumerate(filter(None, floors)):
        for number, room in enumerate(floor):
            places[room] = ((number - (len(floor) - 1) / 2) * (WIDTH + GAP), height * RISE)
    return places


class Router:
    """Finds ways for arrows: from box to box, and through the gaps of the floors between."""

    def __init__(self, places: dict[str, Point], edges: list[Edge]) -> None:
        self.places = places
        self.floors: dict[float, list[float]] = defaultdict(list)
        for x, y in places.values():
            self.floors[y].append(x)
        self.taken: dict[Point, int] = defaultdict(int)
        self.ports = self._share_sides(edges)

    def route(self, edge: Edge) -> list[Point]:
        """Points from one box to the other; between two floors a curve, beside the boxes of a floor straight."""
        start, end = self.ports[edge, 0], self.ports[edge, 1]
        low, high = sorted((self.places[edge[0]][1], self.places[edge[1]][1]))
        up = self.places[edge[0]][1] < high
        points = [start]
        for y in sorted((y for y in self.floors if low < y < high), reverse=not up):
            share = (start[1] - y) / (start[1] - end[1])
            x = self._pass(y, start[0] + share * (end[0] - start[0]))
            sides = [(x, y + HEIGHT / 2), (x, y - HEIGHT / 2)]
            points += sides[::-1] if up else sides
        return [*points, end]

    def _pass(self, y: float, wanted: float) -> float:
        """Lane in the gap of a floor that is nearest to a place; lanes to either side of its middle by turns."""
        middles = [min(self.floors[y]) - (WIDTH + GAP) / 2]
        middles += [x + (WIDTH + GAP) / 2 for x in sorted(self.floors[y])]
        middle = min(middles, key=lambda x: abs(x - wanted))
        number = self.taken[middle, y]
        self.taken[middle, y] += 1
        return middle + LANE * ((number + 1) // 2) * (1 if number % 2 else -1)

    def _share_sides(self, edges: list[Edge]) -> dict[tuple[Edge, int], Point]:
        """Where each arrow leaves and meets its boxes: side by side, in the order of where they come from."""
        sides: dict[tuple[str, int], list[tuple[float, Edge, int]]] = defaultdict(list)
        for edge in edges:
            upward = self.places[edge[0]][1] <= self.places[edge[1]][1]
            for end, (room, other) in enumerate((edge, edge[::-1])):
                bottom = -1 if (end == 0) != upward or (upward and self._level(edge)) else 1
                sides[room, bottom].append((self.places[other][0], edge, end))
        ports = {}
        for (room, side), ends in sides.items():
            x, y = self.places[room]
            for number, (_, edge, end) in enumerate(sorted(ends)):
                shift = ((number + 1) / (len(ends) + 1) - 0.5) * WIDTH * 0.9
                ports[edge, end] = (x + shift, y + side * HEIGHT / 2)
        return ports

    def _level(self, edge: Edge) -> bool:
        return self.places[edge[0]][1] == self.places[edge[1]][1]


def curve_through(points: list[Point]) -> Curve:
    """A line that leaves and meets every point upright; level ends are joined by a bow below them."""
    vertices, codes = [points[0]], [Curve.MOVETO]
    for (x1, y1), (x2, y2) in pairwise(points):
        middle = (y1 + y2) / 2 if abs(y1 - y2) > 1e-6 else y1 - 0.3
        if abs(x1 - x2) < 1e-6:
            vertices, codes = [*vertices, (x2, y2)], [*codes, Curve.LINETO]
        else:
            vertices, codes = [*vertices, (x1, middle), (x2, middle), (x2, y2)], [*codes, *[Curve.CURVE4] * 3]
    return Curve(vertices, codes)


def draw_room(axes: Axes, room: str, lines: int, place: Point) -> None:
    """One box with its name and its size."""
    x, y = place
    box = FancyBboxPatch(
        (x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.08", zorder=3
    )
    box.set(facecolor="#eef3f8", edgecolor="#2c3e50", linewidth=1.2)
    axes.add_patch(box)
    axes.text(x, y + 0.11, room, ha="center", va="center", fontsize=12, fontweight="bold", zorder=4)
    axes.text(x, y - 0.15, f"{lines:,} lines", ha="center", va="center", fontsize=9, color="#444444", zorder=4)


def draw(house: House, target: Path) -> None:
    """Draw the house and write the picture."""
    places, edges, against = place_rooms(house), house.drawn(), house.against()
    router = Router(places, edges)
    width = max(abs(x) for x, _ in places.values()) * 2 + WIDTH + 2 * GAP + 0.6
    height = max(y for _, y in places.values()) + HEIGHT + 0.9
    figure = plt.figure(figsize=(width, height), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-width / 2, width / 2), ylim=(-HEIGHT / 2 - 0.25, height - HEIGHT / 2 - 0.25))
    axes.axis("off")
    for room in sorted(places):
        draw_room(axes, room, house.lines[room], places[room])
    for edge in sorted(edges, key=lambda edge: (edge in against, -places[edge[0]][1], places[edge[0]][0], edge)):
        arrow = FancyArrowPatch(path=curve_through(router.route(edge)), arrowstyle="-|>", mutation_scale=9)
        arrow.set(color=ILLEGAL if edge in against else LEGAL, linewidth=1.1, zorder=2)
        axes.add_patch(arrow)
    words = "an arrow is an import; those that follow from others are left out"
    axes.text(0, height - HEIGHT / 2 - 0.5, f"medvol: {words}", ha="center", va="center", fontsize=11)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(read_house(), PICTURE)
    print(PICTURE)
