"""What a page says of an answer, read from its evidence record, which a person may have edited."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from medvol.core.types import Volume
from medvol.inference.confidence import read_warnings
from medvol.inference.measurements import show_mm
from medvol.inference.recorded_propagator import propagator_options
from medvol.inference.records import plain_values
from medvol.pages.answers import Correction, Fact

_UNTOLD = "not told"

_PATH = re.compile(r"""(?<![\w.:/\\<-])(?:~|[A-Za-z]:)?[/\\][^\s'"<>|*?;]+(?:[/\\][^\s'"<>|*?;]*)*""")
"""A whole path in a sentence; one with a space in it ends there, and so only its first part."""


def without_folders(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose paths are names only: folders may say who the patient is, or who works here."""
    plain = plain_values(record)
    if isinstance(plain.get("not_written"), dict):
        plain["not_written"] = {kind: hide_folders(str(reason)) for kind, reason in plain["not_written"].items()}
    scan = plain.get("scan")
    if isinstance(scan, dict) and isinstance(scan.get("path"), str):
        scan["path"] = _last(scan["path"])
    for role in ("policy", "propagator"):
        plain[role] = _strip(plain.get(role, {}))
    return plain


def hide_folders(text: str) -> str:
    """A sentence whose paths are names only, whichever they are."""
    return _PATH.sub(lambda found: _last(found.group()), text)


def scan_name(record: Mapping[str, Any]) -> str:
    """Name of the scan; ``scan`` for one that was made in memory."""
    path = record["scan"].get("path")
    return _last(path) if isinstance(path, str) and path else "scan"


def measured_facts(record: Mapping[str, Any], depth: int, filled_slices: int) -> tuple[Fact, ...]:
    """Key slice and measurements; of a scan without Hounsfield units no mean is shown.

    Args:
        record: As ``describe_segmentation`` writes it.
        depth: Slices of the scan.
        filled_slices: Slices that the mask lies on.
    """
    mask, evidence = record["mask"], record["evidence"]
    anchors = [evidence, *evidence.get("further", [])]
    count = sum(len(anchor["boxes_px"]) for anchor in anchors)
    boxes = f"{count} box{'es' if count != 1 else ''}, slices 0 to {depth - 1} from feet to head"
    keys = ", ".join(map(str, sorted(anchor["key_slice"] for anchor in anchors)))
    facts = [Fact("Key slice" if len(anchors) == 1 else "Key slices", keys, boxes)]
    if not mask.get("voxels"):
        return (*facts, Fact("Volume", "0 ml", "the mask is empty"))
    voxels = _number(mask["voxels"], "voxels", "{:,}".format)
    extent = f"{voxels} on {filled_slices} slice{'s' if filled_slices != 1 else ''}"
    facts.append(Fact("Volume", _number(mask.get("volume_ml"), "ml", "{:.4g}".format), extent))
    where = f"within slice {mask.get('diameter_slice')}"
    facts.append(Fact("Longest diameter", _number(mask.get("longest_diameter_mm"), "mm", show_mm), where))
    across = _number(mask.get("perpendicular_diameter_mm"), "mm", show_mm)
    facts.append(Fact("Diameter across it", across, "at right angles in that slice"))
    if mask.get("intensity_unit") == "HU":
        facts.append(
            Fact(
                "Mean density", _number(mask.get("mean_intensity"), "HU", "{:.4g}".format), "of the voxels in the mask"
            )
        )
    return tuple(facts)


def origins(record: Mapping[str, Any], volume: Volume) -> tuple[Fact, ...]:
    """Who answered, with what, about which scan."""
    scan = record["scan"]
    shape = " x ".join(str(side) for side in reversed(volume.shape))
    spacing = " x ".join(f"{side:.3g}" for side in reversed(volume.spacing))
    return (
        Fact("Policy", *_component(record.get("policy"))),
        Fact("Propagator", *_component(record.get("propagator"))),
        *_looks(record),
        Fact("Scan", f"{scan.get('modality')}, {shape} voxels", f"of {spacing} mm; x, y, z"),
        Fact(
            "sha256 of the scan", str(scan.get("sha256"))[:16], "of its voxels and geometry; the record has all digits"
        ),
        Fact("Answered with", f"medvol {record.get('medvol', _UNTOLD)}"),
    )


def _looks(record: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Where a second look went, and what was answered at first."""
    looks = record.get("looks") or []
    if len(looks) < 2:
        return ()
    ranges = ", ".join(f"{axis} {first} to {stop - 1}" for axis, (first, stop) in looks[-1]["region"].items())
    return (Fact("Second look", ranges, f"first answer: {looks[0]['answer']}"),)


def warning_sentences(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Why the answer may be worth nothing."""
    confidence = record.get("confidence")
    return read_warnings(confidence) if isinstance(confidence, dict) else ()


def confidence_sentences(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What else is known, and what is not, about how far the answer can be trusted."""
    known = record.get("confidence")
    if not isinstance(known, dict):
        return ("The anchor comes from a record, so nothing was measured of the policy's confidence.",)
    sentences = []
    mean, agreement, unknown = known.get("mean_log_prob"), known.get("agreement"), known.get("unknown")
    if isinstance(mean, int | float):
        sentences.append(
            f"Mean log-probability of the answer's tokens: {mean:.3f}. Near 0 means that the policy is sure of its "
            "words, which is not the same as being right."
        )
    if isinstance(agreement, dict):
        anchors, keys, boxes = (
            _number(agreement.get(name), "", "{:.2f}".format) for name in ("anchors", "key_slice", "boxes")
        )
        sentences.append(
            f"{agreement.get('samples')} more answers, drawn at random, agree {anchors} of 1 on the anchor (key slice "
            f"{keys}, boxes {boxes})."
        )
        if "masks" in agreement:
            masks, support = (_number(agreement.get(name), "", "{:.2f}".format) for name in ("masks", "support"))
            sentences.append(
                f"Their masks agree {masks} of 1, and on average {support} of them hold a voxel of this mask."
            )
    else:
        sentences.append("No further answers were drawn to compare; --samples 8 draws eight.")
    sentences += [f"Not known: {sentence}." for sentence in unknown or [] if isinstance(sentence, str)]
    if not warning_sentences(record):
        sentences.append("No warning does not mean that the answer is right.")
    return tuple(sentences)


def correction(record: Mapping[str, Any], record_file: str, shape: tuple[int, int, int]) -> Correction:
    """The command that gives the mask of an edited record, with the propagator that made the first one.

    Args:
        record: As ``describe_segmentation`` writes it.
        record_file: Name of its file.
        shape: Of the scan.
    """
    depth, height, width = shape
    scan = scan_name(record) if record["scan"].get("path") else "SCAN"
    words = ["medvol", "segment", scan, "--evidence", record_file, *propagator_options(record.get("propagator"))]
    return Correction(record_file, shlex.join([*words, "--out", "."]), depth - 1, width, height)


def _component(identity: Any) -> tuple[str, str]:
    """Name of a component and who publishes it."""
    if not isinstance(identity, dict) or not identity:
        return _UNTOLD, ""
    return str(identity.get("name", _UNTOLD)), str(identity.get("distribution", ""))


def _number(value: Any, unit: str, show: Callable[[float], str]) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _UNTOLD
    return f"{show(value)} {unit}".strip()


def _strip(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strip(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strip(item) for item in value]
    return _last(value) if isinstance(value, str) and _is_path(value) else value


def _is_path(text: str) -> bool:
    if "\n" in text:
        return False
    return text.startswith(("/", "~")) or bool(PureWindowsPath(text).root and PureWindowsPath(text).drive)


def _last(path: str) -> str:
    name = PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
    return name or path
