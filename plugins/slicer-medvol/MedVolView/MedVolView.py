"""3D Slicer as a client of `medvol view`: ask about a scan, move the evidence, get the mask again, keep the correction.

Nothing here was run inside Slicer; see README.md for what was tested, and how.
"""

from __future__ import annotations

from typing import Any

import ctk
import qt
import slicer
from MedVolViewLib import scene
from MedVolViewLib.geometry import Region
from MedVolViewLib.interface.client import ClientError, Progress
from MedVolViewLib.logic import Bench, Stepper
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)

_STEP_MS = 50
_USE = "For research. Not a medical device: no answer of it may decide about a patient."


class MedVolView(ScriptedLoadableModule):
    """What Slicer's list of modules shows."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("medvol view")
        self.parent.categories = ["Segmentation"]
        self.parent.contributors = ["medvol contributors"]
        self.parent.helpText = (
            f"{_USE} Start `medvol view TARGET --policy bundled:best --no_browser` in a terminal, paste the address "
            "that it prints, and press Connect. Move a box, press Propagate, keep the correction."
        )


class MedVolViewLogic(ScriptedLoadableModuleLogic):
    """The scene of a session: one volume, one segmentation, a region of interest for each box."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.bench = Bench()
        self._volume: Any = None
        self._mask: Any = None
        self._boxes: list[Any] = []

    def regions(self) -> list[Region]:
        """The boxes as they are in the scene; those that the reader deleted are gone."""
        self._boxes = [node for node in self._boxes if _is_there(node)]
        return [scene.read_region(node) for node in self._boxes]

    def show_volume(self, voxels: Any) -> None:
        """Show intensities (K, J, I) of the scan that the bench took."""
        self._clear_boxes()
        scan = self.bench.scan
        kept = self._volume if _is_there(self._volume) else None
        self._volume = scene.show_volume(f"medvol: {scan.name}", voxels, scan.affine_ras, kept)
        slicer.util.setSliceViewerLayers(background=self._volume, fit=True)

    def show_window(self) -> None:
        """The window that suits the question."""
        answer = self.bench.answer
        limits = answer.scan.windows.get(answer.window) if answer is not None else None
        if limits is None or not _is_there(self._volume):
            return
        self._volume.CreateDefaultDisplayNodes()
        display = self._volume.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(*limits)

    def show_state(self) -> None:
        """Show the boxes and the mask that the bench has, and go to the key slice."""
        self._clear_boxes()
        self._boxes = [scene.add_region(region, f"box {n}") for n, region in enumerate(self.bench.regions(), 1)]
        self.show_mask()
        point = self.bench.key_point()
        if point is not None:
            slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *(float(value) for value in point))

    def show_mask(self) -> None:
        """Show the mask that the bench has."""
        mask, matrix = self.bench.labelmap()
        kept = self._mask if _is_there(self._mask) else None
        self._mask = scene.show_mask(self.bench.answer.query, mask, matrix, kept)
        if _is_there(self._volume):
            self._mask.SetReferenceImageGeometryParameterFromVolumeNode(self._volume)

    def add_box(self) -> None:
        """A new box in the middle of the slice that the red view shows."""
        region = self.bench.new_region(_red_point())
        self._boxes.append(scene.add_region(region, f"box {len(self._boxes) + 1}"))

    def put_here(self) -> None:
        """All boxes on the slice that the red view shows."""
        moved = self.bench.put_on_slice(self.regions(), _red_point())
        for node, region in zip(self._boxes, moved):  # noqa: B905 - Slicer 5.6 has Python 3.9
            scene.place_region(node, region)

    def _clear_boxes(self) -> None:
        for node in self._boxes:
            if _is_there(node):
                slicer.mrmlScene.RemoveNode(node)
        self._boxes = []


class MedVolViewWidget(ScriptedLoadableModuleWidget):
    """The panel. Slicer does everything in one thread, so work is done step by step from a timer."""

    def setup(self) -> None:
        """Build the panel; Slicer calls it once."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = MedVolViewLogic()
        self.bench = self.logic.bench
        self.stepper = Stepper(self._show_progress, slicer.util.errorDisplay)
        self._timer = qt.QTimer()
        self._timer.setInterval(_STEP_MS)
        self._timer.connect("timeout()", self._step)
        use = qt.QLabel(_USE)
        use.wordWrap = True
        self.layout.addWidget(use)
        self._build_session()
        self._build_question()
        self._build_evidence()
        self._build_work()
        self.layout.addStretch(1)

    def cleanup(self) -> None:
        """Leave nothing running; Slicer calls it when the module goes."""
        self._timer.stop()
        self.stepper.cancel()

    def _build_session(self) -> None:
        form = self._section("Session")
        self.address = qt.QLineEdit()
        self.address.placeholderText = "http://127.0.0.1:PORT/KEY/, as `medvol view` prints it"
        form.addRow("Address", self.address)
        form.addRow(self._button("Connect", self._connect))

    def _build_question(self) -> None:
        form = self._section("Question")
        self.answers, self.scans, self.query, self.notes = qt.QComboBox(), qt.QComboBox(), qt.QLineEdit(), qt.QLabel()
        self.notes.wordWrap = True
        self.notes.textFormat = qt.Qt.PlainText
        form.addRow("Answers", self.answers)
        form.addRow(self._button("Open", self._open))
        form.addRow("Scan", self.scans)
        form.addRow(self._button("Show the scan", self._show_scan))
        form.addRow("Question", self.query)
        form.addRow(self._button("Ask", lambda: self._ask(True)))
        form.addRow(self._button("I draw the boxes", lambda: self._ask(False)))
        form.addRow(self.notes)

    def _build_evidence(self) -> None:
        form = self._section("Evidence")
        self.measures, self.remark = qt.QLabel(), qt.QLineEdit()
        self.measures.wordWrap = True
        self.measures.textFormat = qt.Qt.PlainText
        form.addRow(self._button("Add a box", self._try(self.logic.add_box)))
        form.addRow(self._button("Key slice here", self._try(self.logic.put_here)))
        form.addRow(self._button("As it was", self._try(self._reset)))
        form.addRow(self._button("Propagate", self._propagate))
        form.addRow(self.measures)
        form.addRow("Remark", self.remark)
        for text, verdict in (("Keep correction", "corrected"), ("Accept", "accepted"), ("Reject", "rejected")):
            form.addRow(self._button(text, lambda verdict=verdict: self._save(verdict)))

    def _build_work(self) -> None:
        self.bar, self.cancel = qt.QProgressBar(), qt.QPushButton("Cancel")
        self.cancel.connect("clicked()", self.stepper.cancel)
        for part in (self.bar, self.cancel):
            part.enabled = False
            self.layout.addWidget(part)

    def _connect(self) -> None:
        def begin(session: Any) -> None:
            self._list()
            self.notes.setText("\n".join(str(problem) for problem in session.about["problems"]))

        self._begin(self.bench.connect(self.address.text), begin)

    def _open(self) -> None:
        self._begin(self.bench.open(self._chosen(self.answers)), self._show)

    def _show_scan(self) -> None:
        self._begin(self.bench.open_scan(self._chosen(self.scans)), self.logic.show_volume)

    def _ask(self, policy: bool) -> None:
        self._begin(self.bench.ask(self._chosen(self.scans), self.query.text, policy), self._show)

    def _propagate(self) -> None:
        def show(state: Any) -> None:
            self.logic.show_mask()
            self.measures.setText(state.describe())

        self._begin(self.bench.propagate(self.logic.regions()), show)

    def _save(self, verdict: str) -> None:
        def tell(file: str) -> None:
            self._list()
            self.logic.show_state()
            slicer.util.showStatusMessage(f"kept {file}", 5000)

        self._begin(self.bench.save(verdict, self.logic.regions(), self.remark.text), tell)

    def _reset(self) -> None:
        self.bench.reset()
        self.logic.show_state()
        self.measures.setText(self.bench.state.describe())

    def _show(self, opened: Any) -> None:
        if opened.voxels is not None:
            self.logic.show_volume(opened.voxels)
        self.logic.show_window()
        self.logic.show_state()
        self._list()
        self.query.setText(opened.answer.query)
        self.remark.setText(opened.answer.remark)
        self.notes.setText("\n".join(opened.answer.notes))
        self.measures.setText(opened.state.describe())

    def _list(self) -> None:
        session, answer = self.bench.session, self.bench.answer
        chosen = (None if answer is None else answer.answer_id, None if answer is None else answer.scan.scan_id)
        for box, rows, row_id in ((self.answers, session.answers, chosen[0]), (self.scans, session.scans, chosen[1])):
            box.clear()
            for known, line in rows.items():
                box.addItem(line, known)
            if row_id in rows:
                box.setCurrentIndex(box.findData(row_id))

    def _chosen(self, box: Any) -> str:
        return str(box.currentData or "")

    def _begin(self, steps: Any, then: Any) -> None:
        self.stepper.start(steps, then)
        self._timer.start()

    def _step(self) -> None:
        if not self.stepper.advance():
            self._timer.stop()

    def _show_progress(self, progress: Progress | None) -> None:
        self.bar.enabled = self.cancel.enabled = progress is not None
        self.bar.setRange(0, 0 if progress is not None and progress.share is None else 100)
        self.bar.setValue(0 if progress is None or progress.share is None else int(100 * progress.share))
        slicer.util.showStatusMessage("" if progress is None else progress.text)

    def _try(self, act: Any) -> Any:
        """Something short that may be refused."""

        def do() -> None:
            try:
                act()
            except ClientError as error:
                slicer.util.errorDisplay(str(error))

        return do

    def _section(self, title: str) -> Any:
        section = ctk.ctkCollapsibleButton()
        section.text = title
        self.layout.addWidget(section)
        return qt.QFormLayout(section)

    def _button(self, text: str, act: Any) -> Any:
        button = qt.QPushButton(text)
        button.connect("clicked()", act)
        return button


def _red_point() -> tuple[float, float, float]:
    """A point of the slice that the red view shows, RAS."""
    matrix = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceToRAS()
    return tuple(matrix.GetElement(row, 3) for row in range(3))


def _is_there(node: Any) -> bool:
    return node is not None and slicer.mrmlScene.IsNodePresent(node)
