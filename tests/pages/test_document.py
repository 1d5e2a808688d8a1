"""The file itself: what it contains and allows, without a browser."""

import hashlib
import json
import re
from base64 import b64decode, b64encode
from html.parser import HTMLParser
from pathlib import Path

import pytest
from left_block import HOSTILE, HOSTILE_WORDS

import medvol
from medvol.pages import answers as page_answers
from medvol.pages.answers import AnswerPage, Fact, PageAnswer
from medvol.pages.document import read_asset, show_json
from medvol.pages.viewer import NIIVUE_SHA256, NIIVUE_VERSION, Stack, niivue_licences, niivue_script

NIIVUE = Path(page_answers.__file__).parent / "assets" / "niivue"


class Reader(HTMLParser):
    """Collects elements with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag in self.raw:
            self.raw[tag].append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem in self.raw:
            self.raw[str(self.cdata_elem)][-1] += data


def source(text: bytes) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text).digest()).decode()}'"


def test_the_policy_names_the_scripts_of_the_page_and_nothing_else(one_page: Path) -> None:
    reader = Reader(one_page.read_text(encoding="utf-8"))
    (policy,) = [attributes["content"] for tag, attributes in reader.elements if "http-equiv" in attributes]
    rules = dict(rule.split(" ", 1) for rule in str(policy).split("; "))
    run = [text for (tag, attributes), text in zip(
        [element for element in reader.elements if element[0] == "script"], reader.raw["script"], strict=True
    ) if "type" not in attributes]  # fmt: skip
    assert len(run) == 1
    assert rules == {
        "default-src": "'none'",
        "script-src": f"{source(run[0].encode())} {source(niivue_script())}",
        "style-src": source(reader.raw["style"][0].encode()),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_nothing_points_outside(many_page: Path) -> None:
    reader = Reader(many_page.read_text(encoding="utf-8"))
    targets = [
        str(value)
        for _, attributes in reader.elements
        for name, value in attributes.items()
        if name in ("src", "href", "action", "data", "poster", "srcset", "style") or name.startswith("on")
    ]
    assert len(targets) > 5
    assert {re.split(r"[:,\d]", target)[0] for target in targets} == {"#answer-", "#content", "data"}


def test_the_same_answers_give_the_same_bytes(one_page: Path, left_answer: medvol.Segmentation, tmp_path: Path) -> None:
    again = medvol.write_answer_page([left_answer], tmp_path / "again.html")
    assert again.read_bytes() == one_page.read_bytes()


def test_no_folder_is_named(many_page: Path, left_scan: Path) -> None:
    text = many_page.read_text(encoding="utf-8")
    assert left_scan.name in text
    for part in (left_scan.parent.name, left_scan.parent.parent.name, "patient-jane"):
        assert part not in text


def test_hostile_text_stays_text(many_page: Path) -> None:
    text = many_page.read_text(encoding="utf-8")
    assert HOSTILE_WORDS not in text
    assert HOSTILE[:20] not in text
    assert "{{7*7}}" in text
    assert not {"\u202e", "\u2028"} & set(text)


@pytest.mark.parametrize("text", ["plain", "\u202e\u2028\x7f\xad</script>", "\ud800", "脾臓 \U0001f9e0", 'a"b\\c\n'])
def test_json_for_people_is_still_json(text: str) -> None:
    shown = show_json({"query": text})
    assert json.loads(shown) == {"query": text}
    assert not {"\u202e", "\u2028", "\x7f", "\xad"} & set(shown)
    assert ("脾臓" in text) == ("脾臓" in shown)


def test_niivue_is_as_it_was_published() -> None:
    assert hashlib.sha256(niivue_script()).hexdigest() == NIIVUE_SHA256
    about = (NIIVUE / "README.md").read_text()
    assert NIIVUE_SHA256 in about
    assert f"version {NIIVUE_VERSION}" in about
    assert "Redistributions in binary form must reproduce" in niivue_licences()
    assert "gl-matrix" in niivue_licences()


def test_the_page_carries_niivue_and_its_licence_once(many_page: Path) -> None:
    text = many_page.read_text(encoding="utf-8")
    assert text.count('id="niivue"') == 1
    assert text.count("Redistributions in binary form must reproduce") == 1


def make_stack(voxels: bytes = b"scan", mask: bytes = b"mask") -> Stack:
    size = (1, 1, 1)
    return Stack(voxels, mask, size, (1.0, 1.0, 1.0), (0, 0, 0), size, size, 0, ((0.0, 0.0, 1.0, 1.0),))


def make_answer(stack: Stack | None = None, picture: bytes | None = None) -> PageAnswer:
    return PageAnswer(
        "the spleen", "ct.nii.gz", "found", "Found.", picture, stack=stack, facts=(Fact("Volume", "1 ml"),)
    )


def test_equal_voxels_are_kept_once() -> None:
    page = AnswerPage("1")
    for mask in (b"one", b"two", b"two"):
        page.add(make_answer(make_stack(mask=mask)))
    kept = re.findall(r'id="voxels-\w+">([^<]*)<', page.render())
    assert sorted(b64decode(text) for text in kept) == [b"one", b"scan", b"two"]


def test_a_page_stays_within_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is left out, and the answer says so; the ones that follow and fit are shown."""
    monkeypatch.setattr(page_answers, "_MIB", 10)  # so at most 160 bytes of scans, and 160 of pictures
    page = AnswerPage("1")
    for size in (100, 100, 40):
        page.add(make_answer(make_stack(bytes([size]) * (size - 4) + b"%d" % len(page.answers), b""), b"p" * size))
    assert [answer.stack is not None for answer in page.answers] == [True, False, True]
    assert [answer.picture is not None for answer in page.answers] == [True, False, True]
    assert "at most 16 MiB of scans" in " ".join(page.answers[1].notes)
    assert "at most 16 MiB of pictures" in " ".join(page.answers[1].notes)
    assert page.answers[0].notes == ()


def test_a_page_without_scans_carries_no_viewer() -> None:
    page = AnswerPage("1")
    page.add(make_answer())
    text = page.render()
    assert "niivue" not in text.lower().replace(read_asset("planes.js").decode().lower(), "")
    assert len(text) < 40_000
