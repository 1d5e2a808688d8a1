"""The model card: a README in the form of the Hugging Face hub, which says what a model folder holds and what not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from medvol.core.atomic_files import file_sha256, write_whole
from medvol.core.training_data import Cases, Stage, TrainingData
from medvol.core.traits import TRAITS

CARD_FILE = "README.md"

_FRONT = {
    "license": "unknown",
    "library_name": "medvol",
    "pipeline_tag": "image-segmentation",
    "tags": ["medical", "volumetric", "reasoning-segmentation"],
}
_SPECIAL = re.compile(r"[\\`*{}\[\]<>#|~&:$@]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown or HTML may take as markup; an underscore between letters is none."""


def write_card(path: Path, data: TrainingData) -> None:
    """Write the card of a model folder, with a hash of every other file that lies in it."""
    files = sorted(file for file in path.parent.rglob("*") if file.is_file() and file != path)
    hashes = {file.relative_to(path.parent).as_posix(): file_sha256(file) for file in files}
    with write_whole(path) as partial:
        partial.write_text(render_card(data, hashes), encoding="utf-8")


def render_card(data: TrainingData, hashes: dict[str, str]) -> str:
    """Text of the card; names from elsewhere are escaped, so that they stay text in YAML and in Markdown.

    Args:
        data: What the policy was trained on.
        hashes: SHA-256 of each file by its name.
    """
    front = yaml.safe_dump(_FRONT, sort_keys=False, allow_unicode=True)
    sections = {
        "Limits": "\n".join(f"- {sentence}" for sentence in _limits(data)),
        "Training": _stage_table(data.stages),
        "Scores": _scores(data.stages),
        "Scans it was trained on": _range_tables(data),
        "Words it was trained on": _words(data),
        "Files": _table(("file", "sha256"), ((_plain(name), digest) for name, digest in sorted(hashes.items()))),
        "Licence": "Not chosen yet. Whoever publishes this model writes its licence here and above, in `license`.",
    }
    title = "# A policy for volumetric reasoning segmentation\n\n"
    about = (
        "It reads axial slices of a 3D scan and a query, and names a key slice and boxes. A propagator makes "
        'a mask of them: `medvol segment SCAN "QUERY" --policy THIS_FOLDER`.\n\n'
    )
    body = "\n".join(f"## {heading}\n\n{text.rstrip()}\n" for heading, text in sections.items())
    return f"---\n{front}---\n\n{title}{about}{body}"


def _limits(data: TrainingData) -> Iterator[str]:
    """What the model cannot do, in plain words."""
    yield "It is for research. It is no medical device, and nobody may be treated by what it says."
    if data.drawn:
        yield (
            "**It knows drawn scans only.** No scan of a person was in its training, and what it answers about one is "
            "worth nothing."
        )
    kinds = ", ".join(sorted(data.ranges))
    if kinds:
        yield f"It was trained on {kinds} only. `medvol segment` warns of other scans, and of words that are new to it."
    yield "It always names a place or says that there is none, also where it has not understood the query."
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
    kind = "drawn scans" if cases.drawn else "scans"
    return f"{_plain(cases.data_set)}{owner}{split}: {cases.cases} queries about {cases.volumes} {kind}"


def _scores(stages: tuple[Stage, ...]) -> str:
    """Of the last stage: those before it are of other weights."""
    scores = stages[-1].scores if stages else {}
    if not scores:
        return "Not known. `medvol test` measures them."
    rows = ((_plain(name), f"{value:.3f}") for name, value in sorted(scores.items()))
    text = "Means over the validation cases, by which choices are made. `medvol test` measures more, on others."
    return f"{text}\n\n{_table(('score', 'mean'), rows)}"


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
