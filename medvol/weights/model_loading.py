"""Around a library that loads a model folder: what it raises becomes one sentence, what it left out is an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from medvol.core.errors import CheckpointError, MedvolError
from medvol.core.model_folder import CONFIG, count_numbers

_PANIC = "PanicException"
"""What a library in Rust raises where it gives up; not an ``Exception``."""


@contextmanager
def refuse_damage(model: str | Path) -> Iterator[None]:
    """Turn whatever a loader raises at a damaged folder into a CheckpointError that names it."""
    try:
        yield
    except MedvolError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(f"the model {str(model)!r} cannot be loaded: {reason}") from error


def require_size(network: Any, folder: Path) -> None:
    """Refuse a configuration of another size than the weights, before anything of that size is made.

    Args:
        network: The network of the configuration, made on torch's ``meta`` device, where it takes no memory.
        folder: The model folder.

    Raises:
        CheckpointError: The network is more than twice as large as the weights.
    """
    expected, found = sum(parameter.numel() for parameter in network.parameters()), count_numbers(folder)
    if expected > 2 * found:
        raise CheckpointError(
            f"{str(folder / CONFIG)!r} describes a network of {expected:,} numbers, and the folder holds {found:,}"
        )


def require_same_kinds(network: Any, state: Mapping[str, Any]) -> None:
    """Refuse weights that are no real numbers where the network's own are: torch would convert them without a word.

    Args:
        network: A module of torch.
        state: Its weights by name.

    Raises:
        CheckpointError: One of them is of integers or complex numbers.
    """
    for name, own in network.state_dict().items():
        if name in state and state[name].is_floating_point() != own.is_floating_point():
            raise CheckpointError(f"its weight {name!r} is of {state[name].dtype}, and {own.dtype} is needed")


def require_all_tensors(report: Mapping[str, Any], folder: Path) -> None:
    """Refuse weights that the network lacks, does not know, or knows in another shape.

    Args:
        report: Loading info of transformers.
        folder: The model folder.

    Raises:
        CheckpointError: One of them is wrong; transformers would fill it at random.
    """
    wrong = [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]
    if wrong:
        first = wrong[0] if isinstance(wrong[0], str) else wrong[0][0]
        raise CheckpointError(f"{str(folder)!r}: {len(wrong)} tensors do not fit its config.json, such as {first}")


def require_finite(weights: Iterable[tuple[str, Any]], source: Path) -> None:
    """Refuse weights with NaN or infinite values, as a training that diverged leaves them: their answers say nothing.

    Args:
        weights: Names and tensors of torch.
        source: Folder or file they come from.

    Raises:
        CheckpointError: One of them holds such a value.
    """
    for name, tensor in weights:
        if tensor.is_floating_point() and tensor.numel():
            low, high = (float(value) for value in tensor.detach().aminmax())
            if not (isfinite(low) and isfinite(high)):
                raise CheckpointError(
                    f"the weight {name[:200]!r} in {str(source)!r} holds NaN or infinite values, as after a "
                    "training that diverged; give an earlier checkpoint, or train again with a smaller learning rate"
                )
