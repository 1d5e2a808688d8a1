"""What a reader sees of the plug-in: fields, buttons and lines of text, without anything behind them."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

POLICY = "bundled:best"
"""Answers where the reader names no other, as with `medvol segment`."""
ABOUT_POLICY = f"{POLICY} comes with medvol and knows synthetic scans only: do not trust it on others"
USUAL = "as medvol chooses"


class SessionControls(QGroupBox):
    """Which scan or answers, who answers, who propagates, where readings go."""

    def __init__(self) -> None:
        super().__init__("Session")
        self.target = _line("scan, folder, record, or run")
        self.file, self.folder, self.layer = (QPushButton(text) for text in ("File...", "Folder...", "Layer"))
        self.layer.setToolTip("take the file that the selected layer was read from")
        self.policy = _line("model folder, or policy; empty: nobody answers", POLICY)
        self.about_policy = QLabel(ABOUT_POLICY)
        self.about_policy.setWordWrap(True)
        self.policy.textChanged.connect(lambda text: self.about_policy.setVisible(text.strip() == POLICY))
        self.propagator = QComboBox()
        names = sorted({entry.name for entry in entry_points(group="medvol.propagators")})
        self.propagator.addItems([USUAL, *names])
        self.readings = _line("folder", str(Path("readings").absolute()))
        self.reader = _line("how you call yourself in the readings; may be empty")
        self.start = QPushButton("Start")
        self.connect = QPushButton("Connect...")
        self.connect.setToolTip("use a `medvol view` that runs already")
        form = QFormLayout(self)
        form.addRow("Open", self.target)
        form.addRow("", _row(self.file, self.folder, self.layer))
        form.addRow("Policy", self.policy)
        form.addRow("", self.about_policy)
        form.addRow("Propagator", self.propagator)
        form.addRow("Readings", self.readings)
        form.addRow("Reader", self.reader)
        form.addRow("", _row(self.start, self.connect))

    @property
    def chosen_propagator(self) -> str:
        """Its name; empty where medvol chooses."""
        return "" if self.propagator.currentText() == USUAL else self.propagator.currentText()


class AnswerControls(QGroupBox):
    """The work list, and a new question."""

    def __init__(self) -> None:
        super().__init__("Question")
        self.answers, self.scans = QComboBox(), QComboBox()
        self.query = _line("the question, as you would ask a person")
        self.ask = QPushButton("Ask")
        self.begin = QPushButton("I draw the boxes")
        self.notes = QLabel()
        self.notes.setWordWrap(True)
        self.notes.setObjectName("notes")
        form = QFormLayout(self)
        form.addRow("Answers", self.answers)
        form.addRow("Scan", self.scans)
        form.addRow("Question", self.query)
        form.addRow("", _row(self.ask, self.begin))
        form.addRow(self.notes)
        for box in (self.answers, self.scans):  # a long name must not widen the window
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setMinimumContentsLength(20)


class EvidenceControls(QGroupBox):
    """The boxes, the mask that follows from them, and the verdict."""

    def __init__(self) -> None:
        super().__init__("Evidence")
        self.add = QPushButton("Add a box")
        self.here = QPushButton("Key slice here")
        self.here.setToolTip("put all boxes on the slice that is shown")
        self.reset = QPushButton("As it was")
        self.reset.setToolTip("back to the boxes and the mask of the answer")
        self.propagate = QPushButton("Propagate")
        self.measures = QLabel()
        self.measures.setWordWrap(True)
        self.remark = _line("remark; may be empty")
        self.correct, self.accept, self.reject = (QPushButton(text) for text in ("Keep correction", "Accept", "Reject"))
        column = QVBoxLayout(self)
        column.addWidget(_row(self.add, self.here, self.reset))
        column.addWidget(self.propagate)
        column.addWidget(self.measures)
        column.addWidget(self.remark)
        column.addWidget(_row(self.correct, self.accept, self.reject))


def _line(hint: str, text: str = "") -> QLineEdit:
    line = QLineEdit(text)
    line.setPlaceholderText(hint)
    return line


def _row(*parts: QWidget) -> QWidget:
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        layout.addWidget(part)
    return row
