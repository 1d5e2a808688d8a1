"""The dock widget: ask about a scan, see the evidence, move it, propagate, keep the correction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error, show_info
from qtpy.QtWidgets import QComboBox, QFileDialog, QInputDialog, QLabel, QScrollArea, QVBoxLayout, QWidget

from napari_medvol.controls import AnswerControls, EvidenceControls, SessionControls
from napari_medvol.interface.anchors import Anchor, AnchorError, settle
from napari_medvol.interface.answers import Answer, State
from napari_medvol.interface.client import Client, ClientError
from napari_medvol.interface.opening import Opened, Session, ask, look, open_answer, open_scan, save
from napari_medvol.local_server import LocalServer, start_server
from napari_medvol.shown import Shown
from napari_medvol.work import WorkBar

if TYPE_CHECKING:
    from napari import Viewer

_USE = "For research. Not a medical device: no answer of it may decide about a patient."
_STALE = "the boxes were changed; propagate to see their mask"


class AskAndCorrect(QScrollArea):
    """A session of `medvol view` in napari.

    Args:
        viewer: Shows scan, evidence and mask.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.shown = Shown(viewer)
        self.session, self.question, self.evidence = SessionControls(), AnswerControls(), EvidenceControls()
        self.work = WorkBar(self._set_busy)
        self.client: Client | None = None
        self.answer: Answer | None = None
        self.state: State | None = None
        self._viewer = viewer
        self._servers: list[LocalServer] = []
        self._lay_out()
        self._wire()
        self._set_busy(False)
        self.destroyed.connect(_Farewell(self._servers, self.work.stop))

    def _lay_out(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        use = QLabel(_USE)
        use.setWordWrap(True)
        for part in (use, self.session, self.question, self.evidence, self.work):
            column.addWidget(part)
        column.addStretch()
        self.setWidget(inner)
        self.setWidgetResizable(True)

    def _wire(self) -> None:
        session, question, evidence = self.session, self.question, self.evidence
        session.file.clicked.connect(self._choose_file)
        session.folder.clicked.connect(self._choose_folder)
        session.layer.clicked.connect(self._choose_layer)
        session.start.clicked.connect(self.start)
        session.connect.clicked.connect(self._ask_address)
        question.answers.activated.connect(lambda _: self.open(question.answers.currentData()))
        question.scans.activated.connect(lambda _: self.show_scan(question.scans.currentData()))
        question.ask.clicked.connect(lambda: self.ask(policy=True))
        question.begin.clicked.connect(lambda: self.ask(policy=False))
        question.query.returnPressed.connect(lambda: self.ask(policy=True))
        evidence.add.clicked.connect(self.shown.draw_a_box)
        evidence.here.clicked.connect(self._put_here)
        evidence.reset.clicked.connect(self.reset)
        evidence.propagate.clicked.connect(self.propagate)
        for verdict, button in (("corrected", evidence.correct), ("accepted", evidence.accept)):
            button.clicked.connect(lambda _=False, verdict=verdict: self.save(verdict))
        evidence.reject.clicked.connect(lambda: self.save("rejected"))

    def start(self) -> None:
        """Start `medvol view` on what was chosen, and work with it."""
        chosen = self.session
        policy = chosen.policy.text().strip()
        steps = start_server(
            chosen.target.text().strip(),
            chosen.readings.text().strip(),
            policy,
            chosen.chosen_propagator,
            chosen.reader.text().strip(),
        )

        def begin(server: LocalServer) -> None:
            while self._servers:
                self._servers.pop().stop()
            self._servers.append(server)
            self.connect_to(server.address)

        self.work.do(steps, begin)

    def connect_to(self, address: str) -> None:
        """Work with a server that listens.

        Args:
            address: As `medvol view` prints it.
        """
        try:
            client = Client(address, wait_s=1)
        except ClientError as error:
            show_error(str(error))
            return

        def begin(session: Session) -> None:
            self.client, self.answer, self.state = client, None, None
            self.shown.scan = None  # another server may call another scan by the same id
            self.question.notes.setText("\n".join(session.about["problems"]))
            self._list(session, "")
            if session.answers:
                self.open(next(iter(session.answers)))
            elif session.scans:
                self.show_scan(next(iter(session.scans)))

        self.work.do(look(client), begin)

    def show_scan(self, scan_id: str) -> None:
        """Show a scan without an answer."""
        if self.client is None:
            return

        def show(found: tuple) -> None:
            self.answer = self.state = None
            self.shown.show_scan(*found, "")
            self.evidence.measures.clear()
            self._set_busy(False)

        self.work.do(open_scan(self.client, scan_id), show)

    def open(self, answer_id: str) -> None:
        """Show an answer of the work list."""
        if self.client is not None:
            self.work.do(open_answer(self.client, answer_id, self.shown.scan_id), self._show)

    def ask(self, policy: bool) -> None:
        """Ask the question that stands in the field.

        Args:
            policy: Whether the policy answers; else the reader draws the boxes.
        """
        if self.client is None:
            show_error("there is no session; choose a scan and press Start")
            return
        scan_id, query = self.question.scans.currentData(), self.question.query.text().strip()
        if not scan_id or not query:
            show_error("the question is empty; type what you want to know about the scan")
            return
        self.work.do(ask(self.client, scan_id, query, policy, self.shown.scan_id), self._show)

    def propagate(self) -> None:
        """Make the mask of the boxes as they are now."""
        anchor = self._read_anchor()
        if anchor is None or self.client is None or self.answer is None:
            return

        def follow(state: State) -> None:
            self.state = state
            self.shown.show_mask(state.mask)
            if self._read_anchor() == anchor:
                self._show_boxes(anchor)
                self.evidence.measures.setText(state.describe())

        self.work.do(self.client.propagate(self.answer, anchor), follow)

    def reset(self) -> None:
        """Show the boxes and the mask of the answer again, as it was before anybody moved a box."""
        if self.answer is not None:
            self._show_state(self.answer.original)

    def save(self, verdict: str) -> None:
        """Keep a reading.

        Args:
            verdict: ``corrected``, ``accepted`` or ``rejected``.
        """
        anchor = self._read_anchor()
        if anchor is None or self.client is None or self.answer is None:
            return

        def tell(saved: tuple[str, Opened]) -> None:
            file, opened = saved
            self._show(opened)
            show_info(f"kept {Path(opened.session.about['readings']) / file}")

        self.work.do(save(self.client, self.answer, verdict, anchor, self.evidence.remark.text()), tell)

    def _show(self, opened: Opened) -> None:
        answer, session = opened.answer, opened.session
        if opened.voxels is not None:
            self.shown.show_scan(answer.scan, opened.voxels, answer.window)
        self.answer = answer
        self._list(session, answer.answer_id)
        _choose(self.question.scans, answer.scan.scan_id)
        self.question.query.setText(answer.query)
        said = [f"said: {answer.completion}"] if answer.completion and not answer.original.anchor.boxes_px else []
        draft = ["this is a draft that was not finished"] if answer.draft is not None else []
        self.question.notes.setText("\n".join((*answer.notes, *draft, *said)))
        self.evidence.remark.setText(answer.remark)
        self._show_state(opened.state)
        self._set_busy(False)

    def _show_state(self, state: State) -> None:
        self.state = state
        self.shown.show_mask(state.mask)
        self._show_boxes(state.anchor)
        self.evidence.measures.setText(state.describe())

    def _show_boxes(self, anchor: Anchor) -> None:
        """Show boxes, and hear when the reader changes them."""
        before = self.shown.evidence
        self.shown.show_boxes(anchor)
        if self.shown.evidence is not before:
            self.shown.evidence.events.data.connect(self._grow_stale)

    def _grow_stale(self) -> None:
        self.evidence.measures.setText(_STALE)

    def _list(self, session: Session, answer_id: str) -> None:
        for box, rows, chosen in (
            (self.question.answers, session.answers, answer_id),
            (self.question.scans, session.scans, self.question.scans.currentData()),
        ):
            box.clear()
            for row_id, line in rows.items():
                box.addItem(line, row_id)
            _choose(box, chosen)

    def _read_anchor(self) -> Anchor | None:
        """The boxes of the reader; None where they make no anchor, which is told."""
        if self.answer is None or self.state is None:
            show_error("no answer is open; ask a question, or choose one of the answers")
            return None
        try:
            anchor = self.shown.read_boxes(self.answer.several)
        except AnchorError as error:
            show_error(str(error))
            return None
        return settle(anchor, (self.answer.original.anchor, self.answer.current.anchor, self.state.anchor))

    def _put_here(self) -> None:
        self.shown.put_boxes_here(self.answer is not None and self.answer.several)

    def _set_busy(self, busy: bool) -> None:
        self.session.setEnabled(not busy)
        self.question.setEnabled(not busy and self.client is not None)
        self.evidence.setEnabled(not busy and self.answer is not None)

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "A scan, or a record")
        if path:
            self.session.target.setText(path)

    def _choose_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "A folder of scans, of answers, of DICOM, or of a run")
        if path:
            self.session.target.setText(path)

    def _choose_layer(self) -> None:
        layer = self._viewer.layers.selection.active
        path = None if layer is None else layer.source.path
        if path is None:
            show_error("the selected layer was not read from a file; save it as NIfTI, and open that file")
            return
        self.session.target.setText(str(path))

    def _ask_address(self) -> None:
        address, given = QInputDialog.getText(self, "Connect", "Address that `medvol view` printed, with its key")
        if given:
            self.connect_to(address)


def _choose(box: QComboBox, row_id: str | None) -> None:
    """Choose the row of an id; another one stays where there is none of it."""
    if box.findData(row_id) >= 0:
        box.setCurrentIndex(box.findData(row_id))


class _Farewell:
    """Ends work and server of a widget that is gone; Qt calls it when the widget itself cannot be asked any more."""

    def __init__(self, servers: list[LocalServer], stop: Callable[[], None]) -> None:
        self._servers = servers
        self._stop = stop

    def __call__(self, _: object = None) -> None:
        self._stop()
        for server in self._servers:
            server.stop()
