"""YAML from anywhere: bombs, depths, cycles and long numbers are refused in no time; the rest is built as it is."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from medvol.cli import main
from medvol.core.yaml_text import judge_yaml, read_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
HOSTILE = {
    "aliases that double": BOMB,
    "mappings that double": "a0: &a0 {p: x}\n"
    + "".join(f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}\n" for i in range(1, 40)),
    "an anchor in itself": "model: &a [*a]\n",
    "an anchor in a part of itself": "model: &a {b: {c: [1, *a]}}\n",
    "deep lists": "model: " + "[" * 50_000 + "]" * 50_000,
    "deep mappings": "model: " + "{a: " * 50_000 + "1" + "}" * 50_000,
    "depth by aliases": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 90)),
    "a number of 6,000 digits": "seed_everything: " + "9" * 6000,
    "a number of 5,000 hexadecimal digits": "seed_everything: 0x" + "f" * 5000,
    "a number of 6,000 sixties": "seed_everything: 1" + ":59" * 6000,
    "a truth value that is none": "seed_everything: !!bool x",
    "a date that is none": "seed_everything: 2024-13-45",
    "many values": "model: [" + "1, " * 25_000 + "1]",
    "a key twice": "model: 1\ndata: {a: 1, b: 2, a: 3}\n",
    "a key twice in a list": "model: [{a: 1}, {a: [a, a], a: 2}]\n",
    "many characters": "model: " + "a" * 600_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_refused(text):
    with pytest.raises(yaml.YAMLError):
        read_yaml(text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("verb", ["fit", "check", "describe"])
def test_a_hostile_configuration_is_one_sentence(tmp_path, capsys, text, verb):
    path = tmp_path / "exp.yaml"
    path.write_text(text)
    arguments = {"fit": ["--config", str(path)], "check": [str(path)], "describe": [str(path), "--audit"]}[verb]
    assert main([verb, *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("medvol: ")
    assert len(said.splitlines()) == 1
    assert "exp.yaml" in said or "2024-13-45" in said  # a date is text there


def test_a_hostile_query_bank_is_one_sentence(tmp_path):
    from medvol.core.errors import QueryError
    from medvol.queries.query_bank import read_bank

    for text in HOSTILE.values():
        (tmp_path / "bank.yaml").write_text(text)
        with pytest.raises(QueryError, match=r"bank\.yaml"):
            read_bank(tmp_path / "bank.yaml")


def test_a_long_number_on_the_command_line_is_one_sentence(capsys):
    assert main(["fit", "--seed_everything", "9" * 6000]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: {a: 1}\n",
        "- a: 1\n- a: 2\n",
        "a: b\nb: a\n",
        "a: [a, a]\nb: {a: a}\n",
        "x: &x {a: 1}\ny: {<<: *x, b: 2}\n",
        "x: &x {a: 1}\ny: *x\nz: {p: *x, q: *x}\n",
    ],
)
def test_a_key_in_different_places_is_no_repetition(text):
    assert read_yaml(text) == yaml.safe_load(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="ascii")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=30,
)


@settings(max_examples=30)
@given(VALUES)
def test_ordinary_text_is_built_as_it_is(value):
    assert read_yaml(yaml.safe_dump(value)) == value


@given(st.text(max_size=60))
def test_any_text_is_judged_or_refused(text):
    try:
        judge_yaml(text)
    except yaml.YAMLError:
        return
