"""Names of labels: the nearest file counts, and what is no list of names is refused by label."""

import json
import re
from pathlib import Path

import pytest

from medvol.core.errors import DatasetError
from medvol.queries.label_names import find_names_file, read_label_names

REFUSED = {
    "list": ("[]", "it holds []"),
    "no JSON": ("{", "it cannot be read"),
    "deep": ("[" * 100_000, "it cannot be read"),
    "label of letters": ('{"x": "liver"}', "'x' is no label; write a whole number"),
    "negative label": ('{"-1": "liver"}', "'-1' is no label"),
    "name that is a number": ('{"2": 7}', "the label 2 is called 7; write a name"),
    "empty name": ('{"2": " _ "}', "the label 2 is called ' _ '; write a name"),
    "label twice": ('{"1": "liver", "01": "spleen"}', "the label 1 has two names; keep one"),
    "name twice": ('{"1": "kidney_left", "3": "left kidney"}', "the labels 1 and 3 are all called 'left kidney'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_list_of_names_is_refused(name, tmp_path):
    text, message = REFUSED[name]
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=re.escape(message)) as caught:
        read_label_names(path)
    assert str(caught.value).startswith(f'{path}: expected names by label, such as {{"1": "spleen"}}; ')


def test_names_are_plain_words_and_0_is_the_background(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"0": "background", "3": "kidney_left", "1": "Spleen"}), encoding="utf-8-sig")
    assert read_label_names(path) == {3: "left kidney", 1: "spleen"}


@pytest.mark.parametrize("name", [None, "", 0])
def test_what_the_background_is_called_does_not_count(name, tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"0": name, "1": "spleen"}))
    assert read_label_names(path) == {1: "spleen"}


def test_the_nearest_file_counts(tmp_path):
    label = tmp_path / "a" / "b" / "c" / "label.nii.gz"
    label.parent.mkdir(parents=True)
    (tmp_path / "labels.json").write_text("{}")
    assert find_names_file(label) == tmp_path / "labels.json"
    (tmp_path / "a" / "b" / "labels.json").write_text("{}")
    assert find_names_file(label) == tmp_path / "a" / "b" / "labels.json"


def test_a_relative_path_finds_the_names_that_the_whole_path_finds(tmp_path, monkeypatch):
    """Folders above a label map are its own, and not those that the program was started in."""
    label = tmp_path / "scans" / "a" / "label.nii.gz"
    for folder in (label.parent, tmp_path / "work"):
        folder.mkdir(parents=True)
    (tmp_path / "scans" / "labels.json").write_text("{}")
    (tmp_path / "work" / "labels.json").write_text("{}")
    for start, path in ((label.parent, "label.nii.gz"), (tmp_path / "work", "../scans/a/label.nii.gz")):
        monkeypatch.chdir(start)
        assert find_names_file(Path(path)) == tmp_path / "scans" / "labels.json"
