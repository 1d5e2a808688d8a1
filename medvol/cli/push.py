"""``medvol push``: publish a model folder on the hub; without ``--yes`` it only says what would be uploaded."""

from __future__ import annotations

from collections.abc import Sequence

from medvol.cli.parsing import ComponentParser
from medvol.cli.path_options import require_path_options
from medvol.terminal.console import Console
from medvol.terminal.progress import Work


def run(verb: str, arguments: Sequence[str]) -> int:
    """List what is in the folder; upload it where that was confirmed.

    Raises:
        CheckpointError: The folder is no model folder.
        ConfigError: The name of the repository is none, or the hub refuses.
    """
    parser = ComponentParser(
        prog=f"medvol {verb}", description="Publish a model folder on the Hugging Face hub, with its card."
    )
    parser.add_argument("folder", type=str, help="model folder, as medvol fit and medvol convert write it")
    parser.add_argument("repository", type=str, help="owner/name on the hub")
    parser.add_argument("--yes", action="store_true", help="upload; without it, only say what would be uploaded")
    parser.add_argument("--public", action="store_true", help="a new repository is public; private otherwise")
    options = parser.parse_args(list(arguments))
    require_path_options(options, "FOLDER")

    from medvol.training.publishing import plan_publication

    publication, console = plan_publication(options.folder, options.repository), Console()
    for line in publication.describe():
        console.print(line, soft_wrap=True)
    if not options.yes:
        console.print("nothing was uploaded; add --yes to upload these files", soft_wrap=True)
        return 0
    with Work("uploading"):
        address = publication.upload(private=not options.public)
    console.print(f"uploaded {address}", soft_wrap=True)
    return 0
