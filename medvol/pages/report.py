"""The report page: runs side by side, in one file of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medvol.core.errors import ConfigError
from medvol.pages.answers import Fact
from medvol.pages.blocks import CaseBlock, Section
from medvol.pages.document import in_base64, render_document
from medvol.pages.viewer import NIIVUE_VERSION, SCRIPTS, KeptVoxels, niivue_licences, niivue_script, packed_niivue

MAX_REPORT_MIB = 20
"""Most bytes of a report, all in all: an e-mail takes it. Cases beyond it have figures and words."""

_STYLES = ("page.css", "report.css")
_MIB = 2**20
_MARKUP = 6_000
"""Bytes of the elements and notes that come with a picture or a viewer, at most."""


@dataclass(frozen=True)
class ReportPage:
    """A report as plain data.

    Args:
        title: Its heading.
        runs: Names of the runs; their numbers give the colours.
        facts: What it says in short.
        sections: Its parts, in order.
        version: Version of medvol that the page names.
    """

    title: str
    runs: tuple[str, ...]
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]
    version: str

    def render(self) -> str:
        """The page as HTML; the same data always give the same text.

        Raises:
            ConfigError: Its tables alone are larger than a report may be.
        """
        limit = MAX_REPORT_MIB * _MIB
        bare = _size(self._render(_without_media(self.sections), KeptVoxels(0)))
        if bare > limit:
            raise ConfigError(
                f"the tables of {len(self.runs)} runs alone take {bare / _MIB:.1f} MiB, and a report has at most "
                f"{MAX_REPORT_MIB} MiB; report fewer runs at once"
            )
        voxels = KeptVoxels(0)
        return self._render(_fit(self.sections, limit - bare, voxels), voxels)

    def _render(self, sections: Sequence[Section], voxels: KeptVoxels) -> str:
        shows_scans = bool(voxels.by_id)
        values: dict[str, Any] = {
            "title": self.title,
            "runs": self.runs,
            "facts": self.facts,
            "sections": sections,
            "voxels": voxels.by_id,
            "niivue": packed_niivue() if shows_scans else None,
            "niivue_version": NIIVUE_VERSION,
            "licences": niivue_licences() if shows_scans else "",
            "version": self.version,
        }
        late = [niivue_script()] if shows_scans else []
        return render_document("report.html", SCRIPTS, values, late, _STYLES)


def _fit(sections: Sequence[Section], room: int, voxels: KeptVoxels) -> tuple[Section, ...]:
    """Pictures as far as they fit, then voxels; cases that come first in the report go first."""
    cases = list(_cases(sections))
    fitted: dict[int, CaseBlock] = {id(case): case for case in cases}
    for case in cases:
        if case.picture is None:
            continue
        cost = len(in_base64(case.picture)) + _MARKUP
        if cost <= room:
            room -= cost
        else:
            fitted[id(case)] = _leave_out(replace(case, picture=None), "its picture")
    stacked = [case for case in cases if case.stack is not None]
    room -= len(in_base64(packed_niivue())) + len(niivue_licences()) + _MARKUP * (1 + len(stacked))
    voxels.room = max(0, room) * 3 // 4 - 3 * 3 * len(stacked)
    for case in stacked:
        if case.stack is not None and not voxels.keep(case.stack):
            fitted[id(case)] = _leave_out(replace(fitted[id(case)], stack=None), "slices, planes and 3D")
    return tuple(replace(part, blocks=tuple(fitted.get(id(one), one) for one in part.blocks)) for part in sections)


def _leave_out(case: CaseBlock, what: str) -> CaseBlock:
    note = f"Not shown of this case: {what}, since a report has at most {MAX_REPORT_MIB} MiB."
    return replace(case, notes=(*case.notes, note))


def _without_media(sections: Sequence[Section]) -> tuple[Section, ...]:
    bare = {id(case): replace(case, picture=None, stack=None) for case in _cases(sections)}
    return tuple(replace(part, blocks=tuple(bare.get(id(one), one) for one in part.blocks)) for part in sections)


def _cases(sections: Sequence[Section]) -> Iterator[CaseBlock]:
    return (block for section in sections for block in section.blocks if isinstance(block, CaseBlock))


def _size(text: str) -> int:
    return len(text.encode(errors="backslashreplace"))
