"""Files of tensors are read whole and never run."""

import pickle
import zipfile

import pytest
import torch

from medvol.core.errors import CheckpointError
from medvol.weights.tensor_file import read_tensors


class Payload:
    """Would print, if it were unpickled."""

    def __reduce__(self):
        return print, ("run",)


def test_values_and_tensors_come_back(tmp_path):
    torch.save({"step": 3, "weight": torch.arange(4.0)}, tmp_path / "a.ckpt")
    content = read_tensors(tmp_path / "a.ckpt")
    assert content["step"] == 3
    assert content["weight"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "content",
    # What the unpickler makes of the first byte: a key that is missing, an empty stack, an odd text, an end.
    [b"", b"hi", b"}", b"U\xff", b"\x80\x02", b"K", b"weights", b"PK\x03\x04", pickle.dumps(Payload())],
)
def test_other_files_are_refused(tmp_path, content, capsys):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.ckpt' is not a file of plain values and tensors"):
        read_tensors(tmp_path / "a.ckpt")
    assert "run" not in capsys.readouterr().out


def test_an_archive_that_cannot_be_judged_is_refused(tmp_path):
    """torch unpacks members of an archive whose version Python's own reader refuses to open."""
    torch.save({"weight": torch.zeros(10**6)}, tmp_path / "whole.ckpt")
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as old, zipfile.ZipFile(tmp_path / "a.ckpt", "w", 8) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    content = (tmp_path / "a.ckpt").read_bytes()
    assert len(content) < 40_000
    (tmp_path / "a.ckpt").write_bytes(content.replace(b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\x63"))
    with pytest.raises(CheckpointError, match="damaged archive"):
        read_tensors(tmp_path / "a.ckpt")


def test_a_missing_file_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none.ckpt")
