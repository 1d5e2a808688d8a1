"""``medvol convert``: a checkpoint becomes a model folder that loads without pickle."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from medvol.cli.parsing import ComponentParser
from medvol.cli.path_options import require_path_options
from medvol.core.errors import ConfigError, MedvolError
from medvol.core.registry import PROPAGATORS, REGISTRIES
from medvol.core.visible_text import show
from medvol.core.weights_converter import WeightsConverter
from medvol.terminal.progress import Work

_CHECKPOINT_SUFFIX = ".ckpt"


def run(verb: str, arguments: Sequence[str]) -> int:
    """Convert one checkpoint.

    Raises:
        CheckpointError: The checkpoint cannot be found or read.
        ConfigError: The folder is there already, several components convert weights and none is named, or an option
            would do nothing.
    """
    parser = ComponentParser(
        prog=f"medvol {verb}",
        description="Write a checkpoint as a model folder: of a policy (.ckpt of medvol fit), or of a propagator.",
    )
    parser.add_argument("checkpoint", type=str, help=".ckpt of a run, upstream .pt file, or name of published weights")
    parser.add_argument("folder", type=str, help="folder to write; must not exist")
    parser.add_argument(
        "--component", type=str | None, help="component that the weights belong to, if several are possible"
    )
    parser.add_argument("--image_size", type=int | None, help="side of the network's square; 512 for MedSAM2")
    parser.add_argument("--adapter", action="store_true", help="write only the adapter of a run, in the form of peft")
    parser.add_argument(
        "--download", action="store_true", help="download published weights that are not on this machine"
    )
    options = parser.parse_args(list(arguments))
    require_path_options(options, "CHECKPOINT", "FOLDER")
    if options.checkpoint.endswith(_CHECKPOINT_SUFFIX):
        for name in ("component", "image_size", "download"):
            if options[name]:
                raise ConfigError(
                    f"--{name} is about the weights of a propagator, and {options.checkpoint!r} is named as the "
                    "checkpoint of a run; leave it out"
                )
        _export_policy(Path(options.checkpoint), Path(options.folder), options.adapter)
        return 0
    if options.adapter:
        raise ConfigError(f"--adapter is for the .ckpt of a run; got {options.checkpoint!r}, whose weights are whole")
    converter = _find_converter(options.component)
    with Work("converting"):
        digest = converter.convert_weights(options.checkpoint, options.folder, options.image_size, options.download)
    print(f"weights {show(options.folder)}/model.safetensors\nsha256  {digest}")
    return 0


def _find_converter(name: str | None) -> type[WeightsConverter]:
    """The component of that name, or the only one that converts weights; what cannot be imported converts none."""
    if name is not None:
        registry = next((registry for registry in REGISTRIES if name in registry), PROPAGATORS)
        found = registry.get(name)
        if not issubclass(found, WeightsConverter):
            raise ConfigError(f"{name} takes its weights as they are; there is nothing to convert")
        return found
    converters: list[type[WeightsConverter]] = []
    for registry in REGISTRIES:
        for registered in registry:
            with suppress(MedvolError):
                component = registry.get(registered)
                if issubclass(component, WeightsConverter):
                    converters.append(component)
    if len(converters) != 1:
        names = ", ".join(converter.__name__ for converter in converters) or "no component"
        raise ConfigError(f"weights are converted by {names}; choose one: --component NAME")
    return converters[0]


def _export_policy(checkpoint: Path, folder: Path, adapter: bool) -> None:
    """Write the policy of a run's checkpoint as the folder that ``--policy`` and ``--model.policy.model`` take."""
    from medvol.training.checkpoint import load_policy
    from medvol.training.export import export_model
    from medvol.training.former_run import recover

    if folder.exists():
        raise ConfigError(f"{str(folder)!r} is there already; choose another folder")
    run = checkpoint.resolve().parent.parent
    recover(run)
    policy = load_policy(checkpoint)
    export_model(policy, folder, policy.training_data, run, adapter)
    print(f"{'adapter' if adapter else 'model'} {show(folder)}")
