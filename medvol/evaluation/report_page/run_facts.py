"""What was run and how: components, settings, versions, hashes and configuration of a run, for its report."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medvol.core.atomic_files import file_sha256
from medvol.evaluation.archive import Evaluation
from medvol.evaluation.case_identity import identify_score
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.run_files import CASES_FILE, SUMMARY_FILE
from medvol.pages.answers import Fact
from medvol.pages.blocks import RunBlock, TableBlock

CONFIGURATIONS = ("test.yaml", "fit.yaml")
"""What a run keeps of its settings; the first one that is there is shown."""

MAX_CONFIGURATION = 64_000
"""Most letters of a configuration in a report."""

_MAX_ROWS = 100
_FOLDERS = re.compile(r"(?<![\w.~/\\-])(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?:[^\n'\"/\\]*[^\s'\"/\\][/\\])+")
"""Folders of a path that starts at a root, at home, or at the folder that one stands in."""


def describe_run(label: str, number: int, run: Evaluation) -> RunBlock:
    """Everything that is known of how a run was made.

    Args:
        label: Name of the run.
        number: Its number.
        run: The run.
    """
    configuration, notes = _read_configuration(run.folder)
    return RunBlock(
        label,
        number,
        _facts(run),
        tuple(_tables(run)),
        configuration,
        notes,
    )


def fingerprint_cases(scores: Sequence[CaseScore]) -> str:
    """SHA-256 over the identity of every case, in any order: id, patient, words, target and true volume.

    Runs of one fingerprint answered the same questions about the same true masks, as far as their volumes tell.
    """
    rows = sorted(map(identify_score, scores))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def hide_folders(text: str) -> str:
    """A text in which paths are names only: folders may say who a patient is, or who works here."""
    return _FOLDERS.sub("", text)


def _facts(run: Evaluation) -> tuple[Fact, ...]:
    about, counts = run.summary, run.summary["all"]
    facts = []
    imported = about.get("predictions")
    if isinstance(imported, Mapping):
        notes = [f"layout {imported.get('layout')}"]
        notes += ["resampled to the scans"] if imported.get("resample") else []
        notes += [f"{imported['unused_count']} masks answer no question"] if imported.get("unused_count") else []
        name = Path(str(imported.get("folder", ""))).name
        facts.append(Fact("Masks of another system", name or "not named", ", ".join(notes)))
    for role in ("policy", "propagator"):
        identity = about.get(role)
        if isinstance(identity, Mapping):
            note = identity.get("distribution") or ""
            facts.append(Fact(role.capitalize(), str(identity.get("name", "not named")), str(note)))
    facts.append(Fact("Cases", str(counts["cases"]), f"{counts['present']} with the target present"))
    facts.append(Fact("Patients", str(counts["patients"]), "intervals and tests are by patient"))
    facts.append(Fact("Failures", str(counts["failures"]), "each counts as 0"))
    facts.append(Fact("Data fingerprint", fingerprint_cases(run.scores)[:16], "of questions and true volumes"))
    return tuple(facts)


def _tables(run: Evaluation) -> Iterator[TableBlock]:
    about = run.summary
    details = [
        (f"{part}.{key}", value)
        for part in ("policy", "propagator", "settings", "data", "rewards", "reward_weights")
        for key, value in _flatten(about.get(part))
    ]
    named = about.get("predictions", {}).get("names")
    details += [(f"predictions.names.{key}", value) for key, value in _flatten(named)]
    seeds = [("seed", about.get("seed")), ("bootstrap seed", about["bootstrap_seed"])]
    yield _table("Settings", ("setting", "value"), [*details, *(seed for seed in seeds if seed[1] is not None)])
    yield _table("Versions", ("package", "version"), list(_flatten(about.get("versions"))))
    hashes = [("questions and true volumes", fingerprint_cases(run.scores))]
    names = (SUMMARY_FILE, CASES_FILE, *CONFIGURATIONS)
    hashes += [(name, file_sha256(run.folder / name)) for name in names if (run.folder / name).is_file()]
    yield _table("Hashes (SHA-256)", ("of", "sha256"), hashes)


def _table(title: str, head: tuple[str, str], rows: Sequence[tuple[str, Any]]) -> TableBlock:
    shown = tuple((key, hide_folders(str(value))) for key, value in rows[:_MAX_ROWS])
    note = f"{len(rows) - _MAX_ROWS} more are not shown." if len(rows) > _MAX_ROWS else ""
    return TableBlock(title, head, shown, note, folded=True)


def _flatten(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Keys with dots and the values at the leaves; a list is one value."""
    if not isinstance(node, Mapping):
        if name:
            yield name, "" if node is None else node
        return
    for key, child in node.items():
        yield from _flatten(child, f"{name}.{key}" if name else str(key))


def _read_configuration(folder: Path) -> tuple[str, tuple[str, ...]]:
    """The configuration that a run keeps, without folders, and what is not shown of it."""
    path = next((folder / name for name in CONFIGURATIONS if (folder / name).is_file()), None)
    if path is None:
        return "", ()
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_CONFIGURATION + 1)
    except OSError as error:
        return "", (f"Its configuration cannot be read: {error.strerror}.",)
    whole = len(text) <= MAX_CONFIGURATION
    notes = () if whole else (f"Of its configuration the first {MAX_CONFIGURATION:,} letters are shown.",)
    return hide_folders(text[:MAX_CONFIGURATION]), notes
