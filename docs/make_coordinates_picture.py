"""Draw ``docs/images/coordinates.png``: one slice with its axes and a box, in the units of an answer and in pixels.

python docs/make_coordinates_picture.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import medvol

PICTURE = Path(__file__).resolve().parent / "images" / "coordinates.png"
ANSWER = '<answer>[{"slice": 11, "bbox_2d_list": [[220, 560, 370, 730]]}]</answer>'
NUMBERS = (220, 560, 370, 730)
BOX, INK, QUIET = "#e08a00", "#1c2a39", "#5b6b7a"
BEHIND = {"boxstyle": "round,pad=0.2", "fc": "black", "ec": "none", "alpha": 0.7}
WINDOW_HU = (-160, 240)


def draw_slice(axes: Axes, volume: medvol.Volume, evidence: medvol.Evidence) -> None:
    """Draw the slice with pixels on two sides and the units of an answer on the others."""
    _, height, width = volume.shape
    low, high = WINDOW_HU
    axes.imshow(volume.voxels[evidence.key_slice], cmap="gray", vmin=low, vmax=high, extent=(0, width, height, 0))
    x1, y1, x2, y2 = evidence.boxes[0]
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=BOX, lw=2.5))
    for x, y, text, place in ((x1, y1, "x1, y1", "bottom"), (x2, y2, "x2, y2", "top")):
        axes.plot(x, y, "o", color=BOX, ms=6)
        shift = (0, 6 if place == "bottom" else -8)
        axes.annotate(text, (x, y), shift, textcoords="offset points", color="#ffd166", va=place, bbox=BEHIND)
    for x, y, side in ((3, 48, "R"), (93, 48, "L"), (48, 4, "A"), (48, 92, "P")):
        axes.text(x, y, side, color="white", fontsize=13, ha="center", va="center", fontweight="bold")
    axes.set_xticks([0, x1, x2, width], [f"{tick:.1f}" for tick in (0, x1, x2, width)])
    axes.set_yticks([0, y1, y2, height], [f"{tick:.1f}" for tick in (0, y1, y2, height)])
    axes.set_xlabel(f"x in pixels of the volume's slice (this one: {width} wide)", color=QUIET)
    axes.set_ylabel("y in pixels", color=QUIET)
    for side, ticks, size in (("top", NUMBERS[0::2], width), ("right", NUMBERS[1::2], height)):
        other = axes.secondary_xaxis(side) if side == "top" else axes.secondary_yaxis(side)
        marks = [0, *ticks, 1000]
        if side == "top":
            other.set_xticks([mark * size / 1000 for mark in marks], map(str, marks), color=BOX)
            other.set_xlabel("x in the answer: 0 to 1000", color=BOX)
        else:
            other.set_yticks([mark * size / 1000 for mark in marks], map(str, marks), color=BOX)
            other.set_ylabel("y in the answer: 0 to 1000", color=BOX)


def draw(path: Path) -> None:
    """Draw the picture."""
    case = medvol.DATASETS["PhantomDataset"](split="test", num_volumes=1)[0]
    evidence = medvol.parse_evidence(ANSWER, case.volume.shape)
    figure, axes = plt.subplots(figsize=(7.6, 7), facecolor="white", layout="constrained")
    draw_slice(axes, case.volume, evidence)
    figure.suptitle(ANSWER, family="monospace", fontsize=11, color=INK)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(PICTURE)
