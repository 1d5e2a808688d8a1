"""The prompt: slices first, each with its tag, then the instruction, then the query.

The order lets all queries of one volume, and all completions of one query, share one prefix. One template serves
training, validation and inference and is stored with every model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.ranges import require_coordinate_step
from medvol.core.reprs import Brief
from medvol.core.types import Evidence, SliceStack, Volume


@dataclass(frozen=True)
class Window:
    """An intensity window.

    Args:
        low_hu: Value shown black.
        high_hu: Value shown white.
        percentiles: Percentiles of the volume that take the place of the two when it has no Hounsfield units.
    """

    low_hu: float
    high_hu: float
    percentiles: tuple[float, float] = (1.0, 99.0)


WINDOWS = {
    "soft_tissue": Window(-160.0, 240.0),
    "contrast": Window(0.0, 220.0, (25.0, 99.5)),
    "wide": Window(-900.0, 500.0, (0.5, 90.0)),
    "lung": Window(-1350.0, 150.0),
    "bone": Window(-450.0, 1050.0),
    "brain": Window(0.0, 80.0),
    "paper": Window(-160.0, 240.0),
}
"""Presets by name; ``paper`` is WC 40 / WW 400 of MedVol-R1, the same interval as ``soft_tissue``."""

DEFAULT_WINDOWS = ("soft_tissue", "contrast", "wide")
"""The three windows that become the three channels of a slice."""

INSTRUCTION = (
    "Above are axial slices of one scan from feet to head, each after its index in the volume. "
    "Choose the one slice that shows the target of the query best and box every visible part of it there. "
    "First reason in one or two sentences between <think> and </think>, then write "
    '<answer>[{"slice": N, "bbox_2d_list": [[x1, y1, x2, y2]]}]</answer> with integers from 0 to 1000 over the '
    "slice's width and height, or <answer>[]</answer> when the target is not in the scan."
)
"""Default instruction, written for a general vision-language model."""

SEVERAL = (
    "Where parts of the target lie at different heights, so that no slice shows them all, write up to {count} such "
    "objects in the list, each with another slice and the parts that are seen best on it."
)
"""Added to an instruction where an answer may hold several anchors."""

MAX_ANCHORS = 16
"""Most anchors that a template may allow in one answer."""

_LARGEST_SIZE = 4096
_MOST_PIXELS = 2**28


@dataclass(frozen=True)
class PromptTemplate:
    """Layout of a prompt.

    Args:
        num_slices: Slices shown, spread uniformly over the volume (64 in the paper).
        height_px: Rows of a drawn slice (256 in the paper).
        width_px: Columns of a drawn slice.
        windows: Names of three intensity windows, one a colour channel.
        slice_tag: Text before each slice; ``{index}`` is its index in the volume.
        instruction: Text between the slices and the query.
        coordinate_step: Coordinates in training answers are multiples of this, which divides 1000.
        max_anchors: Most anchors, each on a slice of its own, in one answer (1 in the paper).
    """

    num_slices: int = 64
    height_px: int = 256
    width_px: int = 256
    windows: tuple[str, str, str] = DEFAULT_WINDOWS
    slice_tag: str = "<slice {index}>"
    instruction: str = INSTRUCTION
    coordinate_step: int = 1
    max_anchors: int = 1

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: A size is out of range, the step does not divide 1000, a window is unknown, or the slice tag
                has no place for the index.
        """
        sizes = {name: getattr(self, name) for name in ("num_slices", "height_px", "width_px")}
        for name, value in {**sizes, "max_anchors": self.max_anchors}.items():
            largest = MAX_ANCHORS if name == "max_anchors" else _LARGEST_SIZE
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
                raise ConfigError(f"{name} is a whole number in 1..{largest}; got {value!r}")
        require_coordinate_step(self.coordinate_step)
        if prod(sizes.values()) > _MOST_PIXELS:
            raise ConfigError(
                f"a prompt draws at most {_MOST_PIXELS} pixels; got {' x '.join(map(str, sizes.values()))}"
            )
        listed = isinstance(self.windows, list | tuple) and all(isinstance(name, str) for name in self.windows)
        if not listed or len(self.windows) != 3 or not all(name in WINDOWS for name in self.windows):
            raise ConfigError(f"windows holds three of {', '.join(WINDOWS)}; got {self.windows!r}")
        object.__setattr__(self, "windows", tuple(self.windows))  # a list of the same names is the same layout
        if not (isinstance(self.slice_tag, str) and isinstance(self.instruction, str)):
            raise ConfigError(f"slice_tag and instruction are texts; got {self.slice_tag!r} and {self.instruction!r}")
        if "{index}" not in self.slice_tag or set("{}") & set(self.slice_tag.replace("{index}", "")):
            raise ConfigError(f"slice_tag holds {{index}} and no other braces; got {self.slice_tag!r}")

    @property
    def request(self) -> str:
        """The instruction as it is asked: where several anchors are allowed, it says so; an empty one stays empty."""
        several = self.max_anchors > 1 and self.instruction
        return f"{self.instruction} {SEVERAL.format(count=self.max_anchors)}" if several else self.instruction

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PromptTemplate:
        """Rebuild a template from ``to_dict``.

        Raises:
            CheckpointError: A key is unknown.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise CheckpointError(f"the stored prompt template does not fit this version of medvol: {error}") from error


@dataclass(frozen=True)
class PromptSize:
    """What a prompt fills.

    Args:
        tokens: Tokens before the answer, image tokens included.
        image_tokens: Places kept for the slices.
        image_features: Features that the slices give, one for each place.
        limit: Most tokens of prompt and answer together.
    """

    tokens: int
    image_tokens: int
    image_features: int
    limit: int


@dataclass(frozen=True, eq=False, repr=False)
class Prompt(Brief):
    """What a policy is asked: slices first, then the instruction, then the query.

    Args:
        slices: The slices shown; prompts that hold one object and template share one prefix.
        query: Text of the question.
        template: How slices, instruction and query are laid out.
        truth: True anchor, only given to a policy that declares ``needs_truth`` (an oracle).
        volume: The scan, only given to a policy that declares ``needs_volume``, such as one that looks again.
    """

    slices: SliceStack
    query: str
    template: PromptTemplate
    truth: Evidence | None = None
    volume: Volume | None = None
