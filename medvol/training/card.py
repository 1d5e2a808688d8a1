"""The model card: a README in the form of the Hugging Face hub, which says what a model folder holds and what not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medvol.core.atomic_files import file_sha256, write_whole
from medvol.core.defaults import FOLDER_POLICY
from medvol.core.training_data import Cases, Stage, TrainingData
from medvol.core.traits import TRAITS
from medvol.evaluation.archive import Evaluation
from medvol.evaluation.report import LABELS, format_interval
from medvol.training.base_model import BaseModel

_FRONT: Mapping[str, Any] = {
    "license": "unknown",
    "library_name": "medvol",
    "pipeline_tag": "image-segmentation",
    "tags": ["medical", "volumetric", "reasoning-segmentation"],
}
FEW_PATIENTS = 20
"""With fewer patients than these a card says how many there were."""

_SPECIAL = re.compile(r"[\\`*{}\[\]<>#|~&:$@]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown or HTML may take as markup; an underscore between letters is none."""


@dataclass(frozen=True)
class CardFacts:
    """What a card is filled from.

    Args:
        data: What the policy was trained on.
        base: What training started from; None for random weights, or where that is not known.
        evaluation: Of these weights; None without one.
        adapter: True when the folder holds an adapter alone.
        licence: Terms of the model itself; empty where nobody has chosen them yet.
        command: What makes the model again from nothing; empty where no one command does.
    """

    data: TrainingData
    base: BaseModel | None = None
    evaluation: Evaluation | None = None
    adapter: bool = False
    licence: str = ""
    command: str = ""


def write_card(path: Path, facts: CardFacts) -> None:
    """Write the card of a model folder, with a hash of every other file that lies in it."""
    files = sorted(file for file in path.parent.rglob("*") if file.is_file() and file != path)
    hashes = {file.relative_to(path.parent).as_posix(): file_sha256(file) for file in files}
    with write_whole(path) as partial:
        partial.write_text(render_card(facts, hashes), encoding="utf-8")


def render_card(facts: CardFacts, hashes: dict[str, str]) -> str:
    """Text of the card; names from elsewhere are escaped, so that they stay text in YAML and in Markdown.

    Args:
        facts: What is known of the model.
        hashes: SHA-256 of each file by its name.
    """
    data = facts.data
    front = yaml.safe_dump(_front(facts), sort_keys=False, allow_unicode=True)
    sections = {
        "Limits": "\n".join(f"- {sentence}" for sentence in _limits(data)),
        "Training": _stage_table(data.stages),
        "Scores": _scores(data.stages, facts.evaluation),
        "Scans it was trained on": _range_tables(data),
        "Words it was trained on": _words(data),
        "Files": _table(("file", "sha256"), ((_plain(name), digest) for name, digest in sorted(hashes.items()))),
        "Licence": _licences(facts),
    }
    if facts.command:
        sections = {"Make it again": f"```bash\n{facts.command}\n```", **sections}
    title = "# A policy for volumetric reasoning segmentation\n\n"
    about = (
        "It reads axial slices of a 3D scan and a query, and names a key slice and boxes. A propagator makes "
        f'a mask of them: `medvol segment SCAN "QUERY" {_usage(facts)}`.\n\n'
    )
    body = "\n".join(f"## {heading}\n\n{text.rstrip()}\n" for heading, text in sections.items())
    return f"---\n{front}---\n\n{title}{about}{body}"


def _limits(data: TrainingData) -> Iterator[str]:
    """What the model cannot do, in plain words."""
    yield "It is for research only. It is not a medical device. Do not use it for diagnosis or treatment."
    if data.drawn:
        yield (
            "**It knows synthetic scans only.** It was never trained on a scan of a person. Its answers about real "
            "scans are worth nothing."
        )
    if 0 < data.patients < FEW_PATIENTS:
        whose = "one patient" if data.patients == 1 else f"{data.patients} patients"
        yield f"**It learned from the scans of {whose}.** Expect it to fail for other people."
    kinds = ", ".join(sorted(data.ranges))
    if kinds:
        yield f"It was trained on {kinds} only. `medvol segment` warns of other scans, and of words that are new to it."
    yield "It always names a place or says that there is none, even if it has not understood the query."
    if not any(stage.scores for stage in data.stages):
        yield "It was not validated while it was trained."


def _stage_table(stages: Iterable[Stage]) -> str:
    rows = [
        (
            _plain(stage.module),
            str(stage.steps),
            "not set" if stage.seed is None else str(stage.seed),
            _describe(stage.train, "not known"),
            _describe(stage.val, "nothing"),
            _plain(stage.medvol),
        )
        for stage in stages
    ]
    return _table(("module", "steps", "seed", "trained on", "validated on", "medvol"), rows) if rows else "Not known."


def _describe(cases: Cases | None, otherwise: str) -> str:
    if cases is None:
        return otherwise
    split = f", split {_plain(cases.split)}" if cases.split else ""
    owner = f" of {_plain(cases.distribution)}" if cases.distribution else ""
    kind = "synthetic scans" if cases.drawn else "scans"
    kind += f" of {cases.patients} patient(s)" if cases.patients else ""
    return f"{_plain(cases.data_set)}{owner}{split}: {cases.cases} queries about {cases.volumes} {kind}"


def _front(facts: CardFacts) -> dict[str, Any]:
    """What the hub reads; names of folders are no models of the hub."""
    front = {**_FRONT, **({"library_name": "peft"} if facts.adapter else {})}
    if facts.licence:
        front["license"] = facts.licence
    if facts.base is not None and facts.base.published:
        front["base_model"] = facts.base.name
        if facts.base.licence:
            front["base_license"] = facts.base.licence
    return front


def _usage(facts: CardFacts) -> str:
    if not facts.adapter:
        return "--policy THIS_FOLDER"
    return f"--policy {FOLDER_POLICY} --policy.model BASE --policy.adapter THIS_FOLDER"


def _licences(facts: CardFacts) -> str:
    """What is known of the terms of everything that is in the weights."""
    sets = {stage.train.data_set: stage.train.licence for stage in facts.data.stages if stage.train is not None}
    rows = [("base model", _plain(facts.base.name), facts.base.licence)] if facts.base is not None else []
    rows += [("training data", _plain(name), licence) for name, licence in sorted(sets.items())]
    known = [(what, name, _plain(licence) or "not known") for what, name, licence in rows]
    text = "Not chosen yet. Before you publish this model, write its licence here and above, in `license`."
    if facts.licence:
        text = f"{_plain(facts.licence)}."
    if not known:
        return text
    remark = "What it was made from, with the terms that were stated. Read them at their source:"
    return f"{text} {remark}\n\n{_table(('part', 'name', 'licence'), known)}"


def _scores(stages: tuple[Stage, ...], evaluation: Evaluation | None) -> str:
    """Of these weights: measured, or else those of the last validation; earlier stages are of other weights."""
    if evaluation is not None:
        return _measured(evaluation)
    scores = stages[-1].scores if stages else {}
    if not scores:
        return "Not known. `medvol test` measures them."
    rows = ((_plain(name), f"{value:.3f}") for name, value in sorted(scores.items()))
    text = "Means over the validation cases, by which choices are made. `medvol test` measures more, on others."
    return f"{text}\n\n{_table(('score', 'mean'), rows)}"


def _measured(evaluation: Evaluation) -> str:
    found = evaluation.summary["all"]
    counts = f"{found['cases']} test cases of {found['patients']} patients; {found['failures']} failed and count as 0."
    phrasings = evaluation.summary["groups"]["phrasing"]
    parts = {"all queries": found}
    if len(phrasings) > 1:
        parts |= {f"{name} phrasings": part for name, part in phrasings.items()}
    rows = (
        (LABELS[name], *(format_interval(part["metrics"].get(name)) for part in parts.values()))
        for name in LABELS
        if name in found["metrics"]
    )
    return f"{counts} Means, with 95 % intervals by patient.\n\n{_table(('score', *parts), rows)}"


def _range_tables(data: TrainingData) -> str:
    if not data.ranges:
        return "Not known."
    rows = [
        (modality, _plain(trait.words), *(f"{value * _scale(name):.3g}" for value in ranges[name]), trait.unit)
        for modality, ranges in sorted(data.ranges.items())
        for name, trait in TRAITS.items()
        if name in ranges
    ]
    return _table(("modality", "trait", "least", "most", "unit"), rows)


def _scale(name: str) -> float:
    return 100.0 if TRAITS[name].unit == "%" else 1.0


def _words(data: TrainingData) -> str:
    if data.words is None:
        return "More than are kept; words of a query are not judged."
    return f"{len(data.words)} different ones in its training queries, all listed in `training_data.json`."


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown and HTML leave as it is: no line breaks, no invisible characters, no markup."""
    shown = "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in text)
    return _SPECIAL.sub(r"\\\g<0>", " ".join(shown.split()))[:400]
