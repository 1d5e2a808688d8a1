"""Words of queries in any script."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvol.core.words import MAX_LETTERS, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("das Auto meines Onkels", ["das", "auto", "meines", "onkels"]),
        ("The LEFT kidney, please (T1+)!", ["the", "left", "kidney", "please", "t1"]),
        ("straße STRASSE", ["strasse", "strasse"]),
        ("spl\u00adeen", ["spleen"]),
        ("cafe\u0301 café", ["café", "café"]),
        ("левая почка", ["левая", "почка"]),
        ("बायां गुर्दा", ["बायां", "गुर्दा"]),
        ("脾臓は", ["脾", "臓", "は"]),
        ("콩팥 왼쪽", ["콩팥", "왼쪽"]),
        ("الكلية اليسرى", ["الكلية", "اليسرى"]),
        ("\uff4b\uff49\uff44ney", ["kidney"]),
        ("🫀 ?!", []),
        ("\ud800 x", ["x"]),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == [unicodedata.normalize("NFKC", word) for word in words]


def test_a_long_word_is_cut_the_same_way_on_both_sides() -> None:
    assert split_words("x" * 1000) == ["x" * MAX_LETTERS]


@given(st.text())
def test_words_are_letters_digits_and_marks_and_splitting_again_changes_nothing(text: str) -> None:
    words = split_words(text)
    assert all(unicodedata.category(letter)[0] in "LMN" for word in words for letter in word)
    assert all(0 < len(word) <= MAX_LETTERS for word in words)
    assert [part for word in words for part in split_words(word)] == words


@given(st.text(st.characters(codec="ascii")))
def test_capitals_do_not_count(text: str) -> None:
    assert split_words(text.upper()) == split_words(text.lower())
