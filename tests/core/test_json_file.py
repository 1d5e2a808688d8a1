"""JSON files are written whole, and read or refused by name."""

import json
from pathlib import Path

import pytest

from medvol.core.errors import RecordError
from medvol.core.json_file import parse_json, read_json, write_json

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


def test_nothing_a_folder_and_too_much(tmp_path):
    with pytest.raises(RecordError, match=r"none\.json does not exist; a run writes it"):
        read_json(tmp_path / "none.json", *SAID)
    with pytest.raises(RecordError, match="is a folder, not a JSON file; a run writes it"):
        read_json(tmp_path, *SAID)
    (tmp_path / "x.json").write_text("[1, 2]")
    with pytest.raises(RecordError, match="has 6 bytes, and at most 5 are read; run it again"):
        read_json(tmp_path / "x.json", *SAID, max_bytes=5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"query": "the liver", "query": "the spleen"}', "it has 'query' twice; keep one"),
        ('[{"a": {"b": 1, "c": 2, "b": 1}}]', "it has 'b' twice; keep one"),
        ('{"a": 1' + "0" * 5000 + "}", "it has a number of thousands of digits"),
    ],
    ids=["a key twice", "deeper", "a long number"],
)
def test_nothing_is_lost_and_python_does_not_speak(tmp_path: Path, text: str, said: str):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RecordError, match=r"x\.json cannot be read as JSON \(.*\); run it again") as refusal:
        read_json(tmp_path / "x.json", *SAID)
    assert f"({said})" in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[1, 2, 3]", 3),
        ('{"a": [1, 2], "b": {}}', 5),
        (r'["a,b,[{,,", "\\", "\",,,,"]', 3),
        ('"' + "\\\\," * 200_000 + '"', 0),
    ],
    ids=["a list", "nested", "signs in strings", "a long string"],
)
def test_values_are_counted_outside_of_strings(text, values):
    """By hand: opening brackets and commas."""
    assert parse_json(text, max_values=values) == json.loads(text)
    with pytest.raises(ValueError, match=f"it holds more than {values - 1:,} values"):
        parse_json(text, max_values=values - 1)


def test_a_key_may_repeat_where_others_wrote_the_file():
    assert parse_json('{"a": 1, "b": [{"a": 2}, {"a": 3}], "a": 4}', repeats=True) == {
        "a": 4,
        "b": [{"a": 2}, {"a": 3}],
    }
    assert parse_json('[{"a": 2}, {"a": 3}]') == [{"a": 2}, {"a": 3}]
