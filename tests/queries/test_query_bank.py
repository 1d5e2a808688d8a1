"""Query banks: the built-in one keeps its promises, a user's file adds to it or is refused in one sentence."""

import re
from itertools import product

import pytest

from medvol.core.errors import QueryError
from medvol.datasets import abdomenct1k, ctorg, kits23
from medvol.queries.query_bank import RELEASE_BANK, QueryBank, target_name

BANK = QueryBank.load(RELEASE_BANK)
"""What scans from files are asked with; phantoms are asked without the last file."""
PHANTOM_TARGETS = (
    "liver",
    "spleen",
    "left kidney",
    "right kidney",
    "kidneys",
    "pancreas",
    "aorta",
    "urinary bladder",
    "gallbladder",
    "kidney lesion",
    "kidney without lesion",
    "kidney with lesion",
)
PAPER_CLASSES = sorted(
    {structure.name for structure in (*ctorg.STRUCTURES, *abdomenct1k.STRUCTURES)}
    | {kits23.KIDNEYS, kits23.MASS, kits23.TUMOUR, kits23.CYST}
)
NEW_CLASSES = (*PAPER_CLASSES, "liver tumour")
FUNCTION_WORDS = {"a", "an", "the", "of", "and", "or", "to", "in", "on", "that", "which", "with", "from", "by", "is"}


def words(text):
    return set(re.findall(r"[a-z]+", text.lower()))


@pytest.mark.parametrize("target", PHANTOM_TARGETS)
def test_phantom_targets_have_enough_phrasings(target):
    bank = QueryBank.load()
    assert len(bank.phrasings(target, held_out=False)) >= 8
    assert len(bank.phrasings(target, held_out=True)) >= 3


def test_the_classes_of_the_papers_sets():
    kidney = {"kidneys", "kidney cyst", "kidney lesion", "kidney tumour"}
    assert set(PAPER_CLASSES) == kidney | {"bone", "brain", "liver", "lungs", "pancreas", "spleen", "urinary bladder"}


@pytest.mark.parametrize("target", NEW_CLASSES)
def test_classes_of_the_published_sets_have_enough_implicit_phrasings(target):
    """At least twelve descriptions to train with, and others that are held out."""
    implicit = [query for query in BANK.phrasings(target) if query.kind == "implicit"]
    assert sum(not query.held_out for query in implicit) >= 12
    assert sum(query.held_out for query in implicit) >= 4
    assert any(query.kind == "explicit" for query in BANK.phrasings(target, held_out=False))


@pytest.mark.parametrize("target", BANK.targets)
def test_every_target_can_be_trained_and_tested(target):
    assert BANK.phrasings(target, held_out=False)
    assert BANK.phrasings(target, held_out=True)
    assert all(query.target == target for query in BANK.phrasings(target))


def test_a_text_means_one_target_and_is_trained_or_held_out():
    queries = [query for target in BANK.targets for query in BANK.phrasings(target)]
    assert len({query.text.lower() for query in queries}) == len(queries)
    assert not set(BANK.texts(held_out=False)) & set(BANK.texts(held_out=True))


@pytest.mark.parametrize("target", BANK.targets)
def test_implicit_phrasings_never_name_their_target(target):
    name = words(target) - {"left", "right", "and", "without", "with", "gland", "vein", "bowel", "small", "soft"}
    name |= {word.rstrip("s") for word in name} | {word + "s" for word in name}
    for query in BANK.phrasings(target):
        if query.kind == "implicit" and not (target == "soft-tissue mass" and "tissue" in query.text):
            assert not words(query.text) & name, query.text
            assert not any(part in query.text for part in name if len(part) > 3), query.text


@pytest.mark.parametrize("side", ["left", "right"])
def test_side_phrasings_say_their_side_only(side):
    other = {"left": "right", "right": "left"}[side]
    for target in (t for t in BANK.targets if t.startswith(side)):
        for query in BANK.phrasings(target):
            assert other not in words(query.text)
            assert query.kind != "side" or side in words(query.text)


@pytest.mark.parametrize("target", PHANTOM_TARGETS + NEW_CLASSES)
def test_held_out_phrasings_use_words_that_training_taught(target):
    known = set().union(*(words(text) for text in BANK.texts(held_out=False)))
    content = [w for q in BANK.phrasings(target, True) for w in words(q.text) - FUNCTION_WORDS]
    assert sum(word in known for word in content) >= 0.9 * len(content)


def test_phrasings_that_suit_every_scan_name_no_modality():
    assert "the abnormal soft-tissue mass in this limb" in {q.text for q in BANK.phrasings("soft-tissue mass")}
    for target in BANK.targets:
        for query in BANK.phrasings(target):
            assert not words(query.text) & {"ct", "mr", "mri", "computed", "magnetic", "tomography", "pet", "scanner"}


def test_a_phrasing_that_speaks_of_a_modality_is_asked_of_no_other(tmp_path):
    text = "the bright mass on this MR"
    line = f"soft-tissue mass: {{training: {{implicit: [{{text: {text}, modality: MR}}, the bright mass]}}}}"
    bank = QueryBank.load(write(tmp_path, line))
    asked = {m: {q.text for q in bank.phrasings("soft-tissue mass", False, m)} for m in ("CT", "MR", "other", None)}
    assert {m for m, texts in asked.items() if text in texts} == {"MR"}
    assert all("the bright mass" in texts for texts in asked.values())
    assert text in bank.texts(held_out=False)
    only = QueryBank.load(write(tmp_path, "thing: {training: {free: [{text: this MR thing, modality: MR}]}}"))
    with pytest.raises(QueryError, match="no training phrasing for 'thing' in a scan of modality CT"):
        only.phrasings("thing", False, "CT")


def test_relational_and_side_kinds():
    assert {q.kind for q in BANK.phrasings("kidney without lesion")} == {"relational"}
    assert {q.kind for q in BANK.phrasings("left kidney")} == {"side", "implicit", "explicit"}
    assert "the kidney with no visible lesion" in BANK.texts()


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("spleen", "spleen"),
        ("kidney_left", "left kidney"),
        ("rib_right_12", "right rib 12"),
        ("vertebrae_L5", "vertebra L5"),
        ("iliac_vena_left", "left iliac vein"),
        ("lung_upper_lobe_left", "left lung upper lobe"),
        ("inferior_vena_cava", "inferior vena cava"),
        ("vertebrae", "vertebrae"),
        ("autochthon_right", "right autochthonous back muscle"),
        ("  Urinary_Bladder ", "urinary bladder"),
        ("left kidney", "left kidney"),
        ("Brain tumor", "brain tumour"),
        ("Left-Kidney", "left kidney"),
        ("Right-Cerebellum-Cortex", "right cerebellum-cortex"),
        ("kidney (left)", "left kidney"),
        ("Kidney [RIGHT]", "right kidney"),
        ("kidney, left", "left kidney"),
        ("lung-left-upper-lobe", "left lung upper-lobe"),
        ("left-sided mass", "left-sided mass"),
        ("right-to-left shunt", "right-to-left shunt"),
        ("ileft-over", "ileft-over"),
    ],
)
def test_target_names(label, name):
    assert target_name(label) == name
    assert target_name(name) == name


def test_unknown_targets_are_asked_for_by_name():
    queries = BANK.phrasings("rib_left_3")
    assert {query.target for query in queries} == {"left rib 3"}
    assert {query.kind for query in queries} == {"side"}
    assert all("left rib 3" in query.text for query in queries)
    assert {q.held_out for q in queries} == {False, True}
    assert BANK.phrasings("sternum_thing")[0].kind == "explicit"


def test_class_names_find_the_bank():
    assert BANK.phrasings("kidney_right") == BANK.phrasings("right kidney")


def test_an_empty_name_is_refused():
    with pytest.raises(QueryError, match="empty name"):
        BANK.phrasings(" _ ")


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_adds_phrasings_and_targets(tmp_path):
    mine = "liver: {training: {implicit: [where bile is born]}}\nappendix: {held_out: {explicit: [the appendix]}}\n"
    bank = QueryBank.load(RELEASE_BANK, write(tmp_path, mine))
    assert bank.phrasings("liver")[-1].text == "where bile is born"
    assert len(bank.phrasings("liver")) == len(BANK.phrasings("liver")) + 1
    assert [q.text for q in bank.phrasings("appendix")] == ["the appendix"]
    assert "where bile is born" not in BANK.texts()
    with pytest.raises(QueryError, match="no training phrasing for 'appendix'"):
        bank.phrasings("appendix", held_out=False)


def test_names_in_braces_count_in_capitals_or_not(tmp_path):
    line = '"Brightest {Finding}": {training: {explicit: ["the {Finding}, the {FINDING} that is brightest"]}}'
    (query,) = QueryBank.load(write(tmp_path, line)).phrasings("brightest Nodule", held_out=False)
    assert (query.text, query.target) == ("the nodule, the nodule that is brightest", "brightest nodule")


def test_saying_a_phrasing_again_changes_nothing(tmp_path):
    bank = QueryBank.load(RELEASE_BANK, write(tmp_path, "liver: {training: {explicit: [the liver]}}"))
    assert bank.phrasings("liver") == BANK.phrasings("liver")


BROKEN = {
    "not_yaml": ("liver: [", "not YAML"),
    "tag": ("liver: !!python/object:os.system {}", "not YAML"),
    "empty": ("", "expected a mapping of targets"),
    "list": ("- liver", "expected a mapping of targets"),
    "no_letter": ('"___": {training: {explicit: [x]}}', "'___': a target has an empty name; write what it is called"),
    "number_as_target": ("7: {training: {explicit: [x]}}", "key 7 is not a text"),
    "use": ("liver: {train: {explicit: [x]}}", "'liver': unknown key 'train'; uses are training, held_out"),
    "kind": ("liver: {training: {hint: [x]}}", "'liver': training: unknown key 'hint'; kinds are implicit"),
    "kinds_missing": ("liver: {training: [x]}", "'liver': training: expected a mapping of kinds"),
    "text": ("liver: {training: {explicit: the liver}}", "explicit: expected a list of phrasings, got 'the liver'"),
    "no_text": ("liver: {training: {explicit: []}}", "expected a list of phrasings"),
    "empty_text": ("liver: {training: {explicit: [' ']}}", "' ' is not a phrasing"),
    "place_digit": (
        '"nodule {1}": {training: {explicit: ["nodule {1}"]}}',
        "'nodule {1}': braces in 'nodule {1}'",
    ),
    "place_words": ('"{the name}": {training: {explicit: ["{the name}"]}}', "braces in '{the name}' hold no name"),
    "place_underscore": ('"{a_b} c": {training: {explicit: ["{a_b}"]}}', "braces in '{a b} c' hold no name"),
    "place_foreign": ('"{a²} c": {training: {explicit: ["{a²}"]}}', "braces in '{a²} c' hold no name"),
    "place_open": ('"{name": {training: {explicit: [x]}}', "braces in '{name' hold no name"),
    "place_twice": (
        '"{name} of {Name}": {training: {explicit: ["{name}"]}}',
        "'{name} of {Name}': a name in braces",
    ),
    "place_in_plain": (
        'liver: {training: {explicit: ["the {name}"]}}',
        "'the {name}' must hold the names in",
    ),
    "brace_in_plain": ('liver: {training: {explicit: ["the liver }"]}}', "braces in 'the liver }' hold no name"),
    "place_missing": ('"{a} by {b}": {training: {explicit: ["the {a}"]}}', "of its target, {a}, {b}"),
    "place_unknown": ('"big {a}": {training: {explicit: ["{a} {c}"]}}', "of its target, {a}"),
    "number": ("liver: {training: {explicit: [7]}}", "7 is not a phrasing"),
    "both_uses": ("liver: {held_out: {explicit: [the liver]}}", "'the liver' is given twice, and not for the same use"),
    "modality": (
        "liver: {training: {explicit: [{text: x, modality: PET}]}}",
        "training: explicit: modality is 'PET'; write one of CT, MR, other",
    ),
    "modality_list": ("liver: {training: {explicit: [{text: x, modality: [CT]}]}}", "modality is ['CT']"),
    "two_modalities": (
        "liver: {training: {explicit: [{text: the liver, modality: CT}]}}",
        "'the liver' is given twice, and not for the same use",
    ),
    "text_key": (
        "liver: {training: {explicit: [{txt: x, modality: CT}]}}",
        "is not a phrasing; write a text, or {text",
    ),
    "text_in_text": ("liver: {training: {explicit: [{text: {a: b}, modality: CT}]}}", "{'a': 'b'} is not a phrasing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_the_key(tmp_path, name):
    text, message = BROKEN[name]
    path = write(tmp_path, text)
    with pytest.raises(QueryError, match=re.escape(message)) as caught:
        QueryBank.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(QueryError, match=r"absent\.yaml: the query bank cannot be read"):
        QueryBank.load(tmp_path / "absent.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(QueryError, match=r"b\.yaml: the query bank is not YAML"):
        QueryBank.load(tmp_path / "b.yaml")


def test_texts_come_once_in_order():
    for held_out in (None, False, True):
        texts = BANK.texts(held_out)
        assert len(set(texts)) == len(texts)
    assert BANK.texts()[0] == "the organ that produces bile for digestion"
    assert len(BANK.texts()) == sum(len(BANK.texts(use)) for use in (False, True))


def test_kinds_and_uses_are_read(tmp_path):
    kinds = ("implicit", "explicit", "side", "relational", "absent", "free")
    lines = [f"  {u}:\n" + "".join(f"    {k}: ['{u} {k}']\n" for k in kinds) for u in ("training", "held_out")]
    bank = QueryBank.load(write(tmp_path, "thing:\n" + "".join(lines)))
    read = {(q.text, q.kind, q.held_out) for q in bank.phrasings("thing")}
    assert read == {(f"{u} {k}", k, u == "held_out") for u, k in product(("training", "held_out"), kinds)}
