"""The sidecar of a folder that medvol wrote: the policy that reads it, its prompt template, hashes of its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medvol.core.atomic_files import file_sha256
from medvol.core.errors import CheckpointError
from medvol.core.json_file import parse_json
from medvol.core.settled_files import settled_sha256

SIDECAR = "medvol.json"
"""Name of the file."""

SEAL = "files"
"""Key of the list: SHA-256 of every file that the answers depend on."""

_LOADED = (".json", ".jinja", ".model", ".txt", ".safetensors")
"""A file added beside the others may be loaded where it ends in one of these; the rest is what people write."""

_MAX_BYTES = 16 * 1024**2


def write_sidecar(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the sidecar of a folder whose other files are there, with their list."""
    seal = {_name(file, folder): file_sha256(file) for file in _files(folder)}
    text = json.dumps({"medvol": version("medvol-r1"), **content, SEAL: seal}, indent=2)
    (folder / SIDECAR).write_text(text + "\n", encoding="utf-8")


def read_sidecar(folder: Path) -> dict[str, Any] | None:
    """What medvol wrote of a folder, whose files are as it wrote them; None where there is no sidecar.

    Raises:
        CheckpointError: It is no sidecar, or a file is not as medvol wrote it.
    """
    place = folder / SIDECAR
    if not place.is_file():
        return None
    if place.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"{str(place)!r} has {place.stat().st_size} bytes, and at most {_MAX_BYTES} are read")
    try:
        content = parse_json(place.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{str(place)!r} cannot be read as JSON ({error}); copy the folder again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{str(place)!r} holds no keys and values; copy the folder again")
    require_seal(folder, content)
    return content


def require_seal(folder: Path, sidecar: Any) -> None:
    """Compare the files of a folder with the list that medvol wrote.

    Args:
        folder: The folder.
        sidecar: What its sidecar holds; what has no list is not compared.

    Raises:
        CheckpointError: A file differs, was added or removed, or the list is none.
    """
    seal = sidecar.get(SEAL) if isinstance(sidecar, dict) else None
    if seal is None:
        return
    if not isinstance(seal, dict):
        raise CheckpointError(f"{str(folder / SIDECAR)!r} has no list of files under {SEAL!r}; copy the folder again")
    files = {_name(file, folder): file for file in _files(folder)}
    found = {
        name: settled_sha256(file)
        for name, file in files.items()
        if name in seal or (name.endswith(_LOADED) and "/" not in name)
    }
    differing = sorted(name for name in {*seal, *found} if seal.get(name) != found.get(name))
    if differing:
        raise CheckpointError(
            f"{str(folder / differing[0])!r} is not as medvol wrote it (its SHA-256 differs, or the file was added or "
            f"removed); copy the folder again, or delete {SEAL!r} from {SIDECAR} if you changed it on purpose"
        )


def _files(folder: Path) -> list[Path]:
    """Every file beneath a folder but the sidecar."""
    return sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / SIDECAR)


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()
