"""What a person changed in an answer after it was written, so that it is not replaced by a new one."""

from __future__ import annotations

from pathlib import Path

from medvol.core.errors import GeometryError, MedvolError, RecordError
from medvol.core.prompts import MAX_ANCHORS
from medvol.core.types import Volume
from medvol.grounding.grammar import find_evidence
from medvol.imaging.reading import read_mask
from medvol.inference.measurements import measure_mask
from medvol.inference.records import EvidenceRecord
from medvol.inference.repropagation import require_edit_is_read, was_moved


def was_changed(path: Path, record: EvidenceRecord, volume: Volume) -> bool:
    """True when a record, or the mask beside it, is no longer what the policy and the propagator gave.

    Args:
        path: Of the record.
        record: Read from it.
        volume: Its scan.
    """
    if record.reading is not None or was_moved(volume, record):
        return True
    said = find_evidence(record.completion, volume.shape, MAX_ANCHORS)
    if said is not None and said.rationale != record.evidence.rationale:
        return True
    try:
        require_edit_is_read(volume, record)
    except RecordError:
        return True
    return _was_redrawn(path.with_name(record.mask_file), record, volume)


def _was_redrawn(path: Path, record: EvidenceRecord, volume: Volume) -> bool:
    """True when a mask does not measure what its record says."""
    try:
        mask = read_mask(path, volume)
    except GeometryError:
        return True
    except MedvolError:  # it is gone or damaged, so there is nothing to lose
        return False
    measured = measure_mask(volume.voxels, mask, volume.spacing, record.mask.get("intensity_unit"))
    return any(record.mask[name] != value for name, value in measured.items() if name in record.mask)
