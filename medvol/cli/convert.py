"""``medvol convert``: an upstream checkpoint becomes a folder that loads without pickle."""

from __future__ import annotations

from collections.abc import Sequence

from medvol.cli.parsing import ComponentParser
from medvol.core.registry import PROPAGATORS

_CONVERTER = "MedSAM2Propagator"


def run(verb: str, arguments: Sequence[str]) -> int:
    """Convert one checkpoint.

    Raises:
        CheckpointError: The checkpoint cannot be found or read.
        ConfigError: The folder is there already.
    """
    parser = ComponentParser(
        prog=f"medvol {verb}", description="Write MedSAM2 or SAM 2.1 weights as a folder of safetensors."
    )
    parser.add_argument("checkpoint", type=str, help="upstream .pt file, or name of published weights")
    parser.add_argument("folder", type=str, help="folder to write; must not exist")
    parser.add_argument("--image_size", type=int | None, help="side of the network's square; 512 for MedSAM2")
    parser.add_argument("--download", action="store_true", help="fetch published weights that are not here")
    options = parser.parse_args(list(arguments))
    converter = PROPAGATORS.get(_CONVERTER)
    digest = converter.convert(options.checkpoint, options.folder, options.image_size, options.download)  # type: ignore[attr-defined]
    print(f"weights {options.folder}/model.safetensors\nsha256  {digest}")
    return 0
