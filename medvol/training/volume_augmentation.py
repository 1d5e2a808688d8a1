"""Augmenting scans: intensity and small spatial transforms of torchio, on volume and masks in step.

What a draw does to a volume is decided by a key alone (seed, epoch, place in the data set), so a resumed run repeats
it. A transform that turns the body over would make a true answer to "the left kidney" a wrong one: it is refused.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medvol.core.errors import ConfigError, MissingExtraError
from medvol.core.suggestions import suggest
from medvol.core.types import Case, Volume
from medvol.queries.directions import find_direction

INTENSITY = (
    *("RandomNoise", "RandomBlur", "RandomGamma", "RandomBiasField", "RandomGhosting", "RandomMotion"),
    *("RandomSpike", "RandomAnisotropy"),
)
"""Transforms of intensities; noise and blur leave Hounsfield units what they are, the others suit MR."""

SPATIAL = ("RandomAffine", "RandomElasticDeformation", "RandomFlip")
"""Transforms of places; masks follow by nearest neighbour."""

MAX_DEGREES = 30.0
"""A larger rotation counts as turning the body over."""

MAX_DISPLACEMENT_MM = 15.0
"""Largest elastic displacement."""

_RESERVED = ("include", "exclude", "keep", "parse_input", "label_keys", "copy", "label_interpolation", "check_shape")
_AXES = {0: "LR", 1: "AP", 2: "SI"}


class VolumeAugmentation:
    """Applies a list of transforms to the cases of one volume.

    Args:
        transforms: Each holds ``name``, one of ``INTENSITY`` or ``SPATIAL``, and the arguments of that torchio
            transform, such as ``{"name": "RandomNoise", "std": [0, 10], "p": 0.5}``; applied in order.
        sides_may_swap: Declares that no query names a side, so that left and right may be exchanged.

    Raises:
        ConfigError: A transform is not one of them, is too strong, or could exchange left and right.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], sides_may_swap: bool = False) -> None:
        self.transforms = [dict(transform) for transform in transforms]
        self.sides_may_swap = sides_may_swap
        self._turned: set[str] = set()
        for transform in self.transforms:
            turned = _check(transform)
            if "LR" in turned and not sides_may_swap:
                raise ConfigError(
                    f"augment: {transform['name']} could exchange left and right, and a query such as 'the left "
                    "kidney' would then be taught a wrong answer; leave it out, or set sides_may_swap when no query "
                    "names a side"
                )
            self._turned |= turned

    def load(self) -> None:
        """Build the transforms, so that a wrong argument is told before a run.

        Raises:
            ConfigError: torchio does not take the arguments of a transform.
            MissingExtraError: torchio is not installed.
        """
        _ = self._composed

    def apply(self, cases: Sequence[Case], key: Sequence[int]) -> list[Case]:
        """Augment the cases of one volume together; they share the new volume.

        Args:
            cases: Cases of one volume.
            key: Decides the draw; equal keys give equal volumes.

        Returns:
            New cases, or the cases as they are when the draw would move a target out of the volume or lose it.

        Raises:
            ConfigError: A query names a direction that a transform may turn over.
        """
        torchio = _import_torchio()
        for case in cases:
            self.require_unturned(case)
        volume = cases[0].volume
        maps = {id(mask): mask for case in cases for mask in _grids(case).values()}
        subject = torchio.Subject(
            scan=torchio.ScalarImage(tensor=_to_tensor(volume.voxels), affine=volume.affine),
            **{f"map_{i}": torchio.LabelMap(tensor=_to_tensor(maps[i]), affine=volume.affine) for i in maps},
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchio warns of coarse deformations in every draw
            torch.manual_seed(int(np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0]))
            drawn = self._composed(subject)
        moved = {i: _to_array(drawn[f"map_{i}"]).astype(mask.dtype) for i, mask in maps.items()}
        if any(mask.any() and not moved[i].any() for i, mask in maps.items()):
            return list(cases)
        voxels = np.ascontiguousarray(_to_array(drawn["scan"]), np.float32)
        moves = any(transform["name"] in SPATIAL for transform in self.transforms)
        return _replace(cases, self._rename(volume, voxels, key), moved, moves)

    def require_unturned(self, case: Case) -> None:
        """Refuse a case whose query names a direction that a transform may turn over.

        Raises:
            ConfigError: It does.
        """
        words = f"{case.query.text} {case.query.target} {case.query.meaning}".replace("_", " ")
        for axis in sorted(self._turned):
            found = find_direction(words, axis)
            if found:
                raise ConfigError(
                    f"augment: a transform may turn the axis {axis} over, and the query {case.query.text!r} of case "
                    f"{case.case_id} names {found!r}; leave that transform out"
                )

    def _rename(self, volume: Volume, voxels: NDArray[np.float32], key: Sequence[int]) -> Volume:
        """The augmented volume; its identity tells the draw."""
        text = json.dumps([volume.volume_id, self.transforms, [int(part) for part in key]], sort_keys=True, default=str)
        name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return Volume(voxels, volume.affine, volume.modality, name, shown=volume.shown)

    @cached_property
    def _composed(self) -> Any:
        torchio = _import_torchio()
        built = []
        for transform in self.transforms:
            arguments = {key: _tuples(value) for key, value in transform.items() if key != "name"}
            try:
                built.append(getattr(torchio, transform["name"])(**arguments))
            except (TypeError, ValueError, IndexError) as error:
                raise ConfigError(
                    f"augment: torchio.{transform['name']} does not take {arguments}: {error}; see its documentation"
                ) from error
        return torchio.Compose(built)


def _import_torchio() -> Any:
    try:
        import torchio
    except ImportError as error:
        raise MissingExtraError("torchio", "torchio") from error
    return torchio


def _check(transform: Mapping[str, Any]) -> set[str]:
    """Axes that a transform may turn over.

    Raises:
        ConfigError: It is not one that may be used, or is too strong.
    """
    name, known = transform.get("name"), (*INTENSITY, *SPATIAL)
    if name not in known:
        raise ConfigError(
            f"augment: {name!r} is not a transform that may be used; choose one of {', '.join(known)}"
            f"{suggest(str(name), known)}"
        )
    for key in _RESERVED:
        if key in transform:
            raise ConfigError(f"augment: {key} of {name} is set by medvol, so that masks stay masks; leave it out")
    if name == "RandomElasticDeformation" and _largest(transform.get("max_displacement", 7.5)) > MAX_DISPLACEMENT_MM:
        raise ConfigError(f"augment: max_displacement of {name} is at most {MAX_DISPLACEMENT_MM} mm; lower it")
    if name == "RandomAffine" and _largest(transform.get("degrees", 10)) > MAX_DEGREES:
        return set(_AXES.values())
    return _flipped(transform.get("axes", 0)) if name == "RandomFlip" else set()


def _flipped(axes: Any) -> set[str]:
    """Axes of a flip, given as numbers or as names such as ``Left``."""
    turned = set()
    for axis in axes if isinstance(axes, list | tuple) else [axes]:
        letter = str(axis)[:1].upper()
        name = _AXES.get(axis) if isinstance(axis, int) else next((n for n in _AXES.values() if letter in n), None)
        if name is None:
            raise ConfigError(f"augment: axes of RandomFlip are 0 (left to right), 1 and 2; got {axis!r}")
        turned.add(name)
    return turned


def _largest(value: Any) -> float:
    numbers = np.atleast_1d(np.asarray(value, object)).ravel()
    if not all(isinstance(number, int | float) for number in numbers):
        raise ConfigError(f"augment: {value!r} is not a number or a list of numbers")
    return float(max((abs(number) for number in numbers), default=0.0))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _to_tensor(voxels: NDArray[Any]) -> torch.Tensor:
    """(1, X, Y, Z) in memory of its own; of a kind of number that ITK resamples."""
    wide = np.int32 if voxels.dtype.kind == "u" and voxels.itemsize > 1 else voxels.dtype
    plain = voxels.astype(np.uint8 if voxels.dtype == np.bool_ else wide)
    return torch.from_numpy(plain.transpose(2, 1, 0))[None]


def _to_array(image: Any) -> NDArray[Any]:
    """(Z, Y, X) of a torchio image."""
    return np.asarray(image.data[0].numpy().transpose(2, 1, 0))


def _grids(case: Case) -> dict[str, NDArray[Any]]:
    """Every array of a case that lies on its volume's grid, by field: target, and what a kind of case adds."""
    values = {field.name: getattr(case, field.name) for field in fields(case)}
    shape = case.volume.shape
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray) and value.shape == shape}


def _replace(cases: Sequence[Case], volume: Volume, moved: Mapping[int, NDArray[Any]], moves: bool) -> list[Case]:
    """The cases of the new volume; a reader's boxes do not follow what moves, where the mask gives new ones."""

    def move(case: Case) -> Case:
        maps: dict[str, Any] = {name: moved[id(mask)] for name, mask in _grids(case).items()}
        return replace(case, volume=volume, anchor=None if moves else case.anchor, **maps)

    return [move(case) for case in cases]
