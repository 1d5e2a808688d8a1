"""Settings of ``ScratchModule``: what a policy from random weights learns before and beside its answers."""

from __future__ import annotations

from dataclasses import dataclass

from medvol.core.ranges import require_between, require_whole


@dataclass(frozen=True)
class PerceptionSettings:
    """The perception stage: at first only the slice encoder learns, by the occupancy loss.

    Args:
        steps: First steps of the training; 0 leaves the stage out.
        slices: Slices of each volume in those steps; slices with a label that few show come first.
    """

    steps: int = 0
    slices: int = 12

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range.
        """
        require_whole(0, "perception", steps=self.steps)
        require_whole(1, "perception", slices=self.slices)


@dataclass(frozen=True)
class CurriculumSettings:
    """The curriculum: after the perception stage, a few slices are shown at a time, each at its place in the drawing.

    Args:
        steps: Steps after those of perception; 0 leaves the stage out.
        slices: Slices left in each row of those steps; the others of the volume fill further rows.
        rows: Most rows of a volume in those steps, of slices with a label that few show before others; None keeps all
            of them.
        queries: Most queries a row of those steps.
    """

    steps: int = 0
    slices: int = 4
    rows: int | None = None
    queries: int = 4

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range.
        """
        require_whole(0, "curriculum", steps=self.steps)
        require_whole(1, "curriculum", slices=self.slices, rows=self.rows, queries=self.queries)


@dataclass(frozen=True)
class OccupancySettings:
    """The occupancy loss: image tokens learn which labels lie on them.

    Args:
        weight: Weight of the loss in the curriculum; a third of it afterwards; 0 leaves it out.
        classes: Number of labels, background included; larger labels count as background.
        balance: Labels weigh by their number of points to the power of minus this: 0 all the same, 0.5 one over the
            square root.
        extent_weight: Weight of the cross-entropy of the four edges of a token's region beside that of its points;
            above 0, image tokens also learn how far the region on them reaches.
    """

    weight: float = 0.0
    classes: int = 16
    balance: float = 0.0
    extent_weight: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range.
        """
        require_between(
            "[0, inf)", "occupancy", weight=self.weight, balance=self.balance, extent_weight=self.extent_weight
        )
        require_whole(2, "occupancy", classes=self.classes)


@dataclass(frozen=True)
class GazeSettings:
    """The gaze loss: the policy looks at the target while it writes the target's slices and boxes.

    Args:
        weight: Weight of the part of its attention that it does not give to the target, as a negative log; 0 leaves it
            out.
    """

    weight: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range.
        """
        require_between("[0, inf)", "gaze", weight=self.weight)
