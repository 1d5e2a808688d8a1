"""Model cards: the form of the hub, plain words, hashes, and names that stay text."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from medvol.core.training_data import Cases, Stage, TrainingData
from medvol.evaluation.archive import read_evaluation, write_evaluation
from medvol.evaluation.case_score import CaseScore
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.policies.vision_language import QwenVLPolicy
from medvol.training.base_model import BaseModel, find_base
from medvol.training.card import CardFacts, render_card, write_card
from medvol.training.export import export_model

HOSTILE = "x](javascript:alert(1)) <script>\n---\nlicense: mit\n| a | `b` **c** _d_ \u202e # e &lt; http://evil.com"


def front_of(card: str) -> dict:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def make(**train) -> TrainingData:
    stage = Stage("SFTModule", 7, 3, "0.1", Cases("PhantomDataset", "medvol-r1 0.1", "train", 50, 5, **train))
    return TrainingData({"spleen"}, {"CT": {"width_mm": (350.0, 400.0), "fat_share": (0.25, 0.5)}}, (stage,))


def test_the_card_says_what_how_and_what_not() -> None:
    card = render_card(CardFacts(make(drawn=True)), {"model.safetensors": "ab" * 32})
    assert front_of(card)["license"] == "unknown"
    assert front_of(card)["library_name"] == "medvol"
    for words in (
        "synthetic scans only",
        "| SFTModule | 7 | 3 | PhantomDataset of medvol-r1 0.1, split train: 50 queries about 5 synthetic scans |",
        "| CT | width of the field of view | 350 | 400 | mm |",
        "| 25 | 50 | % |",
        "not validated",
        f"| model.safetensors | {'ab' * 32} |",
    ):
        assert words in card
    assert "synthetic scans only" not in render_card(CardFacts(make()), {})


def test_the_card_says_whose_scans_it_learned_from_when_they_are_few() -> None:
    card = render_card(CardFacts(make(patients=2)), {})
    assert "**It learned from the scans of 2 patients.**" in card
    assert "50 queries about 5 scans of 2 patient(s) |" in card
    assert "**It learned from the scans of one patient.**" in render_card(CardFacts(make(patients=1)), {})
    assert all("It learned from" not in render_card(CardFacts(make(patients=count)), {}) for count in (0, 20))


def test_scores_are_those_of_the_last_stage() -> None:
    data = make()
    data.add_stage(Stage("GRPOModule", 5, scores={"dsc": 0.8125, "key_slice_score": 1.0}))
    card = render_card(CardFacts(data), {})
    assert "| dsc | 0.812 |" in card
    assert card.index("| SFTModule |") < card.index("| GRPOModule |")
    assert "not validated" not in card


def test_base_and_licences_are_listed_where_they_are_known() -> None:
    data = make(licence="CC BY 4.0")
    card = render_card(CardFacts(data, BaseModel("Owner/Base", "apache-2.0")), {})
    front = front_of(card)
    assert (front["base_model"], front["base_license"], front["license"]) == ("Owner/Base", "apache-2.0", "unknown")
    assert "| base model | Owner/Base | apache-2.0 |" in card
    assert "| training data | PhantomDataset | CC BY 4.0 |" in card
    unknown = render_card(CardFacts(make(), BaseModel("folder")), {})
    assert "base_model" not in front_of(unknown), "a folder of this machine is no model of the hub"
    assert "| base model | folder | not known |" in unknown
    assert "| training data | PhantomDataset | not known |" in unknown


@pytest.mark.parametrize(
    ("front", "base"),
    [
        ("license: apache-2.0", BaseModel("model", "apache-2.0")),
        ("library_name: medvol\nbase_model: Owner/Base\nbase_license: mit", BaseModel("Owner/Base", "mit")),
        ("library_name: medvol\nlicense: mit", None),
        ("license: [broken", BaseModel("model")),
        ("- a list", BaseModel("model")),
        ("license: unknown", BaseModel("model")),
        (None, BaseModel("model")),
    ],
)
def test_the_base_is_what_the_card_of_the_folder_says(
    front: str | None, base: BaseModel | None, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    if front is not None:
        (tmp_path / "model" / "README.md").write_text(f"---\n{front}\n---\n\ntext\n")
    assert find_base(QwenVLPolicy(str(tmp_path / "model"))) == base
    assert find_base(TinyPolicy()) is None
    assert find_base(QwenVLPolicy("Owner/NotHere")) == BaseModel("Owner/NotHere")


def test_a_card_tells_what_was_measured_of_these_weights_and_of_no_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two patients, one found whole and one not at all: a mean of a half between 0 and 1."""
    policy = TinyPolicy(template=replace(TINY_TEMPLATE, num_slices=4, height_px=48, width_px=48))
    asked = ("q", "liver", "", False, "CT", True)
    scores = [CaseScore(f"c{i}", f"p{i}", *asked, *[float(i)] * 2, 1.0, 1.0, parsed=True) for i in range(2)]
    write_evaluation(tmp_path, scores, {"policy": dict(policy.identity())})
    export_model(policy, tmp_path / "model", make(), tmp_path)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "2 test cases of 2 patients; 0 failed and count as 0." in card
    assert re.search(r"\| DSC \| 0\.500 \[0\.\d+, [01]\.\d+\] \|", card), card
    assert not caplog.text
    export_model(TinyPolicy(policy.model, policy._template, seed=1), tmp_path / "other", make(), tmp_path)
    assert "[95 % interval" not in (tmp_path / "other" / "README.md").read_text()
    assert "is not known to be of these weights" in caplog.text


@pytest.mark.parametrize("spoil", ["cases deleted", "older schema", "of another program"])
def test_a_model_is_written_whatever_lies_in_the_folder_of_its_run(
    tmp_path: Path, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = TinyPolicy(template=replace(TINY_TEMPLATE, num_slices=4, height_px=48, width_px=48))
    score = CaseScore("c", "p", "q", "liver", "", False, "CT", True, 1.0, 1.0, 1.0, 1.0, parsed=True)
    write_evaluation(tmp_path, [score], {"policy": dict(policy.identity())})
    summary = tmp_path / "evaluation.json"
    if spoil == "cases deleted":
        (tmp_path / "cases.json").unlink()
    elif spoil == "older schema":
        summary.write_text(summary.read_text().replace('"schema": ', '"schema": 100'))
    else:
        summary.write_text("[]")
    export_model(policy, tmp_path / "model", make(), tmp_path)
    assert "[95 % interval" not in (tmp_path / "model" / "README.md").read_text()
    assert "the card has no scores" in caplog.text


def test_phrasings_are_told_apart_where_there_are_two(tmp_path: Path) -> None:
    """One seen query found whole, one held-out query not at all."""
    scores = [
        CaseScore(f"c{i}", "p", "q", "liver", "", bool(i), "CT", True, *[float(1 - i)] * 2, 1.0, 1.0, parsed=True)
        for i in range(2)
    ]
    write_evaluation(tmp_path, scores, {})
    card = render_card(CardFacts(make(), evaluation=read_evaluation(tmp_path)), {})
    assert "| score | all queries | held-out phrasings | seen phrasings |" in card
    assert "| DSC | 0.500 | 0.000 | 1.000 |" in card


def test_a_licence_and_a_command_are_stated_where_they_are_known() -> None:
    card = render_card(CardFacts(make(), licence="apache-2.0", command="python make_it.py"), {})
    assert front_of(card)["license"] == "apache-2.0"
    assert "## Make it again\n\n```bash\npython make_it.py\n```" in card
    assert "Not chosen yet" not in card
    assert "Make it again" not in render_card(CardFacts(make()), {})


def test_what_is_not_known_is_said() -> None:
    card = render_card(CardFacts(TrainingData()), {})
    assert card.count("Not known") == 3


def test_a_folder_whose_training_is_not_known_says_so_and_claims_nothing(tmp_path: Path) -> None:
    class Saved:
        model = None

        def save(self, folder: Path, adapter: bool) -> None:
            folder.mkdir()
            (folder / "weights").write_bytes(b"1")

    export_model(Saved(), tmp_path / "model", None)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["README.md", "weights"]
    assert "Not known" in (tmp_path / "model" / "README.md").read_text()


def test_hostile_names_stay_text() -> None:
    data = make()
    learned = Cases(HOSTILE, HOSTILE, HOSTILE, licence=HOSTILE)
    data.add_stage(Stage(HOSTILE, 1, None, HOSTILE, learned, Cases(HOSTILE), {"dsc": 1.0}))
    card = render_card(CardFacts(data, BaseModel(HOSTILE, HOSTILE)), {HOSTILE: "0" * 64})
    assert front_of(card)["license"] == "unknown"
    assert card.count("\n---\n") == 1, "nothing opens another block"
    body = card.split("---\n", 2)[2]
    assert not re.search(r"(?<!\\)[<`*\[]", body.replace("**It knows", "").replace("`medvol", "").replace("`", ""))
    assert "\u202e" not in card
    rows = [line for line in body.splitlines() if line.startswith("|")]
    columns = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert columns <= {3, 4, 6, 7}, "no name adds a column"


def test_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.bin").write_bytes(b"weights")
    (tmp_path / "sub" / "b.txt").write_bytes(b"more")
    write_card(tmp_path / "README.md", CardFacts(make()))
    card = (tmp_path / "README.md").read_text()
    assert f"| a.bin | {hashlib.sha256(b'weights').hexdigest()} |" in card
    assert f"| sub/b.txt | {hashlib.sha256(b'more').hexdigest()} |" in card
    assert "| README.md |" not in card


@pytest.mark.parametrize("drawn", [True, False])
def test_the_same_knowledge_gives_the_same_card(drawn: bool) -> None:
    first, second = (render_card(CardFacts(make(drawn=drawn)), {"a": "1"}) for _ in range(2))
    assert first == second
