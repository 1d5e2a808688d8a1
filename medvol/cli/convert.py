"""``medvol convert``: a checkpoint becomes a model folder that loads without pickle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medvol.cli.parsing import ComponentParser
from medvol.core.errors import ConfigError
from medvol.core.progress import Work
from medvol.core.registry import PROPAGATORS
from medvol.core.visible_text import show

_CONVERTER = "MedSAM2Propagator"
_CHECKPOINT_SUFFIX = ".ckpt"


def run(verb: str, arguments: Sequence[str]) -> int:
    """Convert one checkpoint.

    Raises:
        CheckpointError: The checkpoint cannot be found or read.
        ConfigError: The folder is there already.
    """
    parser = ComponentParser(
        prog=f"medvol {verb}",
        description="Write a checkpoint as a model folder: of a policy (.ckpt of medvol fit), of MedSAM2 or SAM 2.1.",
    )
    parser.add_argument("checkpoint", type=str, help=".ckpt of a run, upstream .pt file, or name of published weights")
    parser.add_argument("folder", type=str, help="folder to write; must not exist")
    parser.add_argument("--image_size", type=int | None, help="side of the network's square; 512 for MedSAM2")
    parser.add_argument("--download", action="store_true", help="fetch published weights that are not here")
    options = parser.parse_args(list(arguments))
    if options.checkpoint.endswith(_CHECKPOINT_SUFFIX):
        _export_policy(options.checkpoint, Path(options.folder))
        return 0
    converter = PROPAGATORS.get(_CONVERTER)
    with Work("converting"):
        digest = converter.convert(options.checkpoint, options.folder, options.image_size, options.download)  # type: ignore[attr-defined]
    print(f"weights {show(options.folder)}/model.safetensors\nsha256  {digest}")
    return 0


def _export_policy(checkpoint: str, folder: Path) -> None:
    """Write the policy of a run's checkpoint as the folder that ``--policy`` and ``--model.policy.model`` take."""
    from medvol.core.training.checkpoint import load_policy
    from medvol.core.training.export import export_model

    if folder.exists():
        raise ConfigError(f"{str(folder)!r} is there already; choose another folder")
    policy = load_policy(checkpoint)
    export_model(policy, folder, policy.training_data)
    print(f"model {show(folder)}")
