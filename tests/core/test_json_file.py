"""JSON files are written whole, and read or refused by name."""

import json

import pytest

from medvol.core import json_file
from medvol.core.errors import RecordError
from medvol.core.json_file import read_json, write_json

SAID = ("a run writes it", "run it again")


def test_nothing_half_written(tmp_path):
    write_json(tmp_path / "x.json", [1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", [float("nan")])
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert json.loads((tmp_path / "x.json").read_text()) == [1]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a byte order mark"])
def test_what_an_editor_saved(tmp_path, mark):
    (tmp_path / "x.json").write_bytes(mark + '{"query": "der Gürtel"}'.encode())
    assert read_json(tmp_path / "x.json", *SAID) == {"query": "der Gürtel"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[NaN]",
        b"[Infinity]",
        b"[-Infinity]",
        b"[" * 100_000,
        b"{'a': 1}",
        b'{"a": 1, "a": 1}',
    ],
)
def test_what_is_no_json(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RecordError, match=r"x\.json cannot be read as JSON \(.*\); run it again"):
        read_json(tmp_path / "x.json", *SAID)


def test_nothing_a_folder_and_too_much(tmp_path, monkeypatch):
    with pytest.raises(RecordError, match=r"none\.json does not exist; a run writes it"):
        read_json(tmp_path / "none.json", *SAID)
    with pytest.raises(RecordError, match="is a folder, not a JSON file; a run writes it"):
        read_json(tmp_path, *SAID)
    (tmp_path / "x.json").write_text("[1, 2]")
    monkeypatch.setattr(json_file, "MAX_BYTES", 5)
    with pytest.raises(RecordError, match="has 6 bytes, and at most 5 are read; run it again"):
        read_json(tmp_path / "x.json", *SAID)
