"""Query banks: how people ask for a target, kept apart for training and for testing.

A bank is YAML: target, then ``training`` or ``held_out``, then the kind of the query, then a list of texts. A text that
speaks of one modality is written ``{text: the bright mass on this MR, modality: MR}`` and asked of no other scan. The
banks that come with the package lie beside this file: ``query_bank.yaml``, and ``release_bank.yaml`` with further
descriptions for scans that come from files; a user's files add to them. A target with names in braces (``largest
{name}``, in ``relation_bank.yaml``) is a pattern for targets that have no phrasings of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from medvol.core.errors import QueryError
from medvol.core.types import Modality, Query, QueryKind
from medvol.core.yaml_text import read_yaml

Phrasing = Literal["train", "held_out", "both"]
"""Which phrasings a data set asks with: training ones, held-out ones, or one of each."""

BUILT_IN_BANK = Path(__file__).with_name("query_bank.yaml")
"""The bank that comes with the package."""

RELATION_BANK = Path(__file__).with_name("relation_bank.yaml")
"""Patterns of relational targets that come with the package."""

RELEASE_BANK = Path(__file__).with_name("release_bank.yaml")
"""Further descriptions of the classes of published data sets; asked of scans from files, not of phantoms."""

_USES = {"training": False, "held_out": True}
_KINDS: tuple[str, ...] = get_args(QueryKind)
_PLACE = re.compile(r"\{[a-z]\w*\}", re.ASCII | re.IGNORECASE)
_GENERATED = {
    False: ("the {name}", "the {name} of the patient", "show the {name}", "the {name} in this scan"),
    True: ("show the {name} of the patient", "show the {name} in this scan"),
}
_PLAIN_WORDS = (
    (r"\bautochthon\b", "autochthonous back muscle"),
    (r"\bclavicula\b", "clavicle"),
    (r"\biliac vena\b", "iliac vein"),
    (r"\btumor\b", "tumour"),
    (r"\bvertebrae(?= [A-Z]\d)", "vertebra"),
)
_MARKED_SIDE = re.compile(r"(?:^\s*|[(\[,-]\s*)(left|right)(?:\s*[)\],-](?!(?:sided|to)\b)|\s*$)", re.IGNORECASE)
"""A side between marks, as in ``Left-Kidney``, ``kidney (left)`` and ``kidney, left``."""


class QueryBank:
    """Phrasings by target.

    Args:
        phrasings: Queries of each target; the keys are names as ``target_name`` writes them, or patterns.
    """

    def __init__(self, phrasings: Mapping[str, Sequence[Query]]) -> None:
        self._phrasings = {target: tuple(queries) for target, queries in phrasings.items() if "{" not in target}
        self._patterns = {target: tuple(queries) for target, queries in phrasings.items() if "{" in target}

    @classmethod
    def load(cls, *extra_paths: str | Path) -> QueryBank:
        """Read the built-in bank and add the phrasings of further files.

        Raises:
            QueryError: A file cannot be read or has the wrong layout, or a phrasing of a target is given twice for
                different uses or modalities; the message names the file and the key.
        """
        merged: dict[str, dict[str, Query]] = {}
        for path in (BUILT_IN_BANK, RELATION_BANK, *map(Path, extra_paths)):
            for query in read_bank(path):
                known = merged.setdefault(query.target, {}).setdefault(query.text, query)
                if (known.held_out, known.modality) != (query.held_out, query.modality):
                    raise QueryError(
                        f"{path}: {query.target!r}: {query.text!r} is given twice, and not for the same use (training "
                        "or held_out) and modality; keep one"
                    )
        return cls({target: tuple(queries.values()) for target, queries in merged.items()})

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets the bank has phrasings for, in order of first appearance; without patterns."""
        return tuple(self._phrasings)

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of targets, in order of first appearance."""
        return tuple(self._patterns)

    def phrasings(self, target: str, held_out: bool | None = None, modality: Modality | None = None) -> list[Query]:
        """Ways to ask for a target.

        Args:
            target: Name of a target; class names such as ``kidney_left`` are understood. One that the bank does not
                hold is asked for by the first pattern that fits, or else by its name.
            held_out: Only held-out phrasings, only training ones, or all when None.
            modality: Modality of the scan; texts that speak of another one are left out, and all that speak of one
                when it is None.

        Raises:
            QueryError: The name is empty, or the bank holds no phrasing of that use and modality.
        """
        name = target_name(target)
        queries = self._phrasings.get(name) or self._fill_pattern(name) or _name_queries(name)
        fitting = [query for query in queries if query.modality in (None, modality)]
        chosen = [query for query in fitting if held_out is None or query.held_out == held_out]
        if not chosen:
            use = "held_out" if held_out else "training"
            raise QueryError(
                f"the query bank has no {use} phrasing for {name!r} in a scan of modality {modality or 'unknown'}; add "
                "one in a query bank file"
            )
        return chosen

    def _fill_pattern(self, name: str) -> tuple[Query, ...]:
        """Phrasings of the first pattern that a name fits, with its own names in them; none when it fits no pattern."""
        for pattern, queries in self._patterns.items():
            match = re.fullmatch(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(pattern)), name)
            if match:
                return tuple(
                    replace(query, text=_fill(query.text, match.groupdict()), target=name) for query in queries
                )
        return ()

    def training_queries(self) -> list[Query]:
        """Training phrasings of all targets that speak of no modality, in order; without patterns."""
        queries = [query for target in self.targets for query in self._phrasings[target]]
        return [query for query in queries if not query.held_out and query.modality is None]

    def texts(self, held_out: bool | None = None) -> list[str]:
        """Texts of all phrasings, for a tokenizer; each once, in order."""
        queries = [query for target in self.targets for query in self._phrasings[target]]
        return list(dict.fromkeys(q.text for q in queries if held_out is None or q.held_out == held_out))


def read_bank(path: Path) -> list[Query]:
    """Read one file of phrasings.

    Raises:
        QueryError: It cannot be read, is not YAML, or has the wrong layout; the message names the file and the key.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise QueryError(f"{path}: the query bank cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise QueryError(f"{path}: the query bank is not YAML: {' '.join(str(error).split())}") from error
    queries = []
    for target, uses in _items(content, str(path), "targets"):
        try:
            name = target_name(target)
        except QueryError as error:
            raise QueryError(f"{path}: {target!r}: {error}") from error
        places = _find_places(name, f"{path}: {target!r}")
        if len(set(places)) < len(places):
            raise QueryError(f"{path}: {target!r}: a name in braces stands there twice; give each a name of its own")
        for use, kinds in _items(uses, f"{path}: {target!r}", "uses", tuple(_USES)):
            where = f"{path}: {target!r}: {use}"
            for kind, texts in _items(kinds, where, "kinds", _KINDS):
                queries += [
                    Query(_with_places(text, places, f"{where}: {kind}"), name, kind, _USES[use], modality)
                    for text, modality in _texts(texts, f"{where}: {kind}")
                ]
    return queries


def target_name(label: str) -> str:
    """Name of a target in plain words: ``kidney_left`` and ``Left-Kidney`` are one; ``vertebrae_L5`` the vertebra L5.

    Raises:
        QueryError: The name is empty.
    """
    words = [word for word in re.split(r"[\s_]+", _MARKED_SIDE.sub(r" \1 ", label)) if word]
    if not words:
        raise QueryError("a target has an empty name; write what it is called")
    words = [word if re.fullmatch(r"[A-Z]\d+", word) else word.lower() for word in words]
    side = next((word for word in words if word in ("left", "right")), None)
    if side is not None:
        words.remove(side)
        words.insert(0, side)
    name = " ".join(words)
    for pattern, plain in _PLAIN_WORDS:
        name = re.sub(pattern, plain, name)
    return name


def _find_places(text: str, where: str) -> list[str]:
    """Names in braces, braces included, in small letters."""
    if set("{}") & set(_PLACE.sub("", text)):
        raise QueryError(f"{where}: braces in {text!r:.80} hold no name; write one word of letters, such as {{name}}")
    return [place.lower() for place in _PLACE.findall(text)]


def _with_places(text: str, places: list[str], where: str) -> str:
    """A text with its names in braces in small letters; they are those of its target."""
    if set(_find_places(text, where)) != set(places):
        named = ", ".join(places) or "which has none"
        raise QueryError(f"{where}: {text!r:.80} must hold the names in braces of its target, {named}")
    return _PLACE.sub(lambda place: place[0].lower(), text)


def _fill(text: str, names: Mapping[str, str]) -> str:
    for key, name in names.items():
        text = text.replace(f"{{{key}}}", name)
    return text


def _name_queries(name: str) -> tuple[Query, ...]:
    """Phrasings that say the name, for a target that no file knows."""
    kind: QueryKind = "side" if name.startswith(("left ", "right ")) else "explicit"
    return tuple(
        Query(form.format(name=name), name, kind, held_out) for held_out, forms in _GENERATED.items() for form in forms
    )


def _items(content: Any, where: str, what: str, allowed: tuple[str, ...] = ()) -> list[tuple[Any, Any]]:
    """Entries of a mapping, its keys checked."""
    if not isinstance(content, dict) or not content:
        raise QueryError(f"{where}: expected a mapping of {what}, got {content!r:.80}")
    for key in content:
        if not isinstance(key, str) or not key.strip():
            raise QueryError(f"{where}: the key {key!r} is not a text; put it in quotes")
        if allowed and key not in allowed:
            raise QueryError(f"{where}: unknown key {key!r}; {what} are {', '.join(allowed)}")
    return list(content.items())


def _texts(content: Any, where: str) -> list[tuple[str, Modality | None]]:
    """Phrasings of one list, outer blanks removed, each with the modality it speaks of."""
    if not isinstance(content, list) or not content:
        raise QueryError(f"{where}: expected a list of phrasings, got {content!r:.80}")
    return [_text(entry, where) for entry in content]


def _text(entry: Any, where: str) -> tuple[str, Modality | None]:
    modality = None
    if isinstance(entry, dict) and set(entry) == {"text", "modality"}:
        entry, modality = entry["text"], entry["modality"]
        if modality not in get_args(Modality):
            raise QueryError(f"{where}: modality is {modality!r:.80}; write one of {', '.join(get_args(Modality))}")
    if not isinstance(entry, str) or not entry.strip():
        raise QueryError(f"{where}: {entry!r:.80} is not a phrasing; write a text, or {{text: ..., modality: MR}}")
    return entry.strip(), modality
