"""Draw ``docs/images/evidence.png``, the picture of the README: evidence, its mask, a corrected box, its mask.

    python docs/make_readme_picture.py

The scan is a drawn test phantom. The answer is what the policy of ``examples/quickstart.yaml`` wrote about it; the
corrected box is the true one. Both masks come from ``RegionPropagator``.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

import medvol

PICTURE = Path(__file__).resolve().parent / "images" / "evidence.png"
VOLUME = 27
QUERY = "the kidney with no visible lesion"
ANSWER = '<answer>[{"slice": 11, "bbox_2d_list": [[660, 580, 780, 720]]}]</answer>'
BOX, MASK, LESION, INK = "#e08a00", "#00b88a", "#e63946", "#1c2a39"
WINDOW_HU = (-160, 240)
CROP_PX = (8, 88, 76, 34)
"""Columns and rows that are shown: left, right, bottom, top."""


@dataclass(frozen=True)
class Step:
    """One panel: an anchor, and the mask that follows from it when it is shown."""

    title: str
    text: str
    evidence: medvol.Evidence
    mask: NDArray[np.bool_] | None = None


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks."""
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def read_cases() -> dict[str, medvol.Case]:
    """Cases of the test phantom by their targets."""
    phantoms = medvol.DATASETS["PhantomDataset"](split="test", num_volumes=VOLUME + 1)
    last = phantoms.volume_key(len(phantoms) - 1)
    places = [place for place in range(len(phantoms)) if phantoms.volume_key(place) == last]
    return {case.query.target: case for case in map(phantoms.__getitem__, places)}


def make_steps(case: medvol.Case) -> list[Step]:
    """Follow the answer and the corrected box to their masks."""
    said = medvol.parse_evidence(ANSWER, case.volume.shape)
    on_slice = np.zeros_like(case.target)
    on_slice[said.key_slice] = case.target[said.key_slice]
    mended = medvol.label_anchor(on_slice)
    first, second = medvol.PROPAGATORS["RegionPropagator"]().propagate_many(case.volume, [said, mended])
    before, after = (f"Dice {dice(mask, case.target):.2f}" for mask in (first, second))
    return [
        Step("1  The policy writes evidence", f'"{QUERY}": slice {said.key_slice}, one box', said),
        Step(
            "2  The propagator makes a 3D mask", f"You see the lesion in the box: wrong kidney, {before}", said, first
        ),
        Step("3  You move the box", f"A new mask, without asking the policy: {after}", mended, second),
    ]


def draw_step(axes: Axes, volume: medvol.Volume, lesion: NDArray[np.bool_], step: Step) -> None:
    """Draw the key slice with lesion, box and mask."""
    key = step.evidence.key_slice
    _, spacing_y, spacing_x = volume.spacing
    limits = dict(zip(("vmin", "vmax"), WINDOW_HU, strict=True))
    axes.imshow(volume.voxels[key], cmap="gray", aspect=spacing_y / spacing_x, interpolation="bilinear", **limits)
    if step.mask is not None:
        axes.contourf(step.mask[key], [0.5, 1], colors=[MASK], alpha=0.4)
        axes.contour(step.mask[key], [0.5], colors=[MASK], linewidths=2.2)
    if lesion[key].any():
        axes.contour(lesion[key], [0.5], colors=[LESION], linewidths=1.8, linestyles="dashed")
    for x1, y1, x2, y2 in step.evidence.boxes.tolist():
        axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, ec=BOX, lw=2.6))
    left, right, bottom, top = CROP_PX
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    for x, side in ((left + 2, "R"), (right - 2, "L")):
        axes.text(x, bottom - 3, side, color="white", fontsize=13, ha="center", va="center")
    axes.set_title(step.title, fontsize=15, fontweight="bold", color=INK, pad=8, loc="left")
    axes.set_xlabel(step.text, fontsize=12, color=INK, loc="left", labelpad=8)


def draw(path: Path) -> None:
    """Draw the picture."""
    cases = read_cases()
    case, lesion = cases["kidney without lesion"], cases["kidney lesion"].target
    figure, panels = plt.subplots(1, 3, figsize=(16, 3.9), facecolor="white", layout="constrained")
    for axes, step in zip(panels, make_steps(case), strict=True):
        draw_step(axes, case.volume, lesion, step)
    key = [
        Rectangle((0, 0), 1, 1, fill=False, ec=BOX, lw=2),
        Rectangle((0, 0), 1, 1, fc=MASK, alpha=0.6),
        Rectangle((0, 0), 1, 1, fill=False, ec=LESION, lw=1.5, ls="--"),
    ]
    panels[0].legend(key, ["box", "mask", "true lesion"], loc="upper left", fontsize=10, framealpha=0.85)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(PICTURE)
