"""Folders that were made for files that never came are gone again."""

from pathlib import Path

import pytest

from medvol.core.atomic_files import write_together, write_whole, write_whole_folder

WRITERS = {
    "file": lambda folder: write_whole(folder / "file.txt"),
    "folder": lambda folder: write_whole_folder(folder / "folder"),
    "files": lambda folder: write_together(folder, "last.json"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_not_written_leaves_no_folders(kind: str, tmp_path: Path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="no"), WRITERS[kind](tmp_path / "a" / "b" / "c"):
        raise ValueError("no")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]
    with WRITERS[kind](tmp_path / "a" / "b" / "c") as place:
        (place / "last.json" if place.is_dir() else place).write_text("{}")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
