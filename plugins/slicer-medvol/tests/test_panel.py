"""The panel in a real MRML scene with a stand-in of Qt and of the server. It is no run inside Slicer.

It finds names that are not there and steps in a wrong order. How the panel looks, and whether Slicer's own Qt takes the
calls, it does not tell.
"""

import sys
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed; `make plugins` runs these tests")
import slicer
from MedVolViewLib import logic
from MedVolViewLib.interface.anchors import Anchor
from MedVolViewLib.interface.answers import Answer, State
from MedVolViewLib.interface.client import ClientError, Progress
from test_geometry import SHAPE, scan

FIRST = Anchor(5, ((10.0, 6.0, 30.0, 18.0),))


class Part(MagicMock):
    """A widget that remembers its text."""

    def __init__(self, text="", *others, **named):
        super().__init__(**named)
        self.text = text

    def _get_child_mock(self, **named):
        return MagicMock(**named)

    def setText(self, text):
        self.text = text


class Choice:
    """A combo box."""

    def __init__(self):
        self.rows, self.index = [], 0

    def clear(self):
        self.rows = []

    def addItem(self, text, data):
        self.rows.append((text, data))

    def findData(self, data):
        return [row[1] for row in self.rows].index(data)

    def setCurrentIndex(self, index):
        self.index = index

    @property
    def currentData(self):
        return self.rows[self.index][1] if self.rows else None


class Server:
    """Answers as a client does: one answer about one scan; the mask of an anchor is its boxes on its slice."""

    def __init__(self, address):
        if address != "the address":
            raise ClientError("a wrong address")
        self.saved = []

    def session(self):
        return {"scans": [{"scan": "a", "name": "a.nii"}], "problems": []}

    def list_answers(self):
        verdict = self.saved[-1][0] if self.saved else None
        row = {"query": "the block", "scan_name": "a.nii", "verdict": verdict, "unfinished": False}
        damaged = {"id": "c", **row, "damage": "c_accepted.json: it holds no record"}
        return [{"id": "b", **row, "damage": ""}, damaged]

    def open(self, answer_id):
        yield Progress("opening")
        current = self.saved[-1][1] if self.saved else FIRST
        original, state = (self._follow(anchor) for anchor in (FIRST, current))
        return Answer(
            answer_id, "the block", scan(), "usual", original, state, "0", None, "", 0, ("warning: x",), "", ""
        )

    def open_scan(self, scan_id):
        yield Progress("opening")
        return scan()

    def load_voxels(self, about):
        yield Progress("loading", 0.5)
        return np.zeros(about.shape, np.int16)

    def propagate(self, answer, anchor):
        yield Progress("propagating")
        return self._follow(anchor)

    def save(self, answer, verdict, anchor, remark):
        yield Progress("saving")
        self.saved.append((verdict, anchor, remark))
        return "reading.json"

    def _follow(self, anchor):
        mask = np.zeros(SHAPE, bool)
        for x1, y1, x2, y2 in anchor.boxes_px:
            mask[anchor.key_slice, int(y1) : int(y2), int(x1) : int(x2)] = True
        return State(anchor, mask, {"voxels": int(mask.sum()), "volume_ml": mask.sum() * 0.012})


@pytest.fixture
def panel(monkeypatch):
    """The widget of the module, set up."""
    qt = MagicMock(QComboBox=Choice, QLineEdit=Part, QLabel=Part)
    monkeypatch.setitem(sys.modules, "qt", qt)
    monkeypatch.setitem(sys.modules, "ctk", MagicMock())
    base = type("Base", (), {"__init__": lambda self, parent=None: setattr(self, "parent", parent), "setup": _nothing})
    loadable = ModuleType("slicer.ScriptedLoadableModule")
    for name in ("", "Logic", "Widget"):
        setattr(loadable, f"ScriptedLoadableModule{name}", base)
    monkeypatch.setitem(sys.modules, "slicer.ScriptedLoadableModule", loadable)
    monkeypatch.setitem(sys.modules, "slicer.i18n", SimpleNamespace(tr=str))
    monkeypatch.setattr(slicer, "mrmlScene", slicer.vtkMRMLScene(), raising=False)
    monkeypatch.setattr(slicer, "app", MagicMock(), raising=False)
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceToRAS()
    red.GetElement = lambda row, column: (0.0, 0.0, 356.0 + 4 * 8)[row]  # slice 8
    for name in ("errorDisplay", "showStatusMessage", "setSliceViewerLayers"):
        monkeypatch.setattr(slicer.util, name, MagicMock())
    monkeypatch.setattr(logic, "Client", Server)
    monkeypatch.delitem(sys.modules, "MedVolView", raising=False)
    import MedVolView

    MedVolView.MedVolView(MagicMock())
    made = MedVolView.MedVolViewWidget()
    made.layout = MagicMock()
    made.setup()
    return made


def _nothing(self):
    pass


def work(panel, act, *arguments):
    act(*arguments)
    while panel.stepper.working:
        panel._step()


def nodes(kind):
    found = slicer.mrmlScene.GetNodesByClass(kind)
    return [found.GetItemAsObject(index) for index in range(found.GetNumberOfItems())]


def opened(panel):
    panel.address.text = "the address"
    work(panel, panel._connect)
    work(panel, panel._open)


def test_an_answer_is_shown_moved_propagated_and_kept(panel):
    opened(panel)
    (volume,), (box,) = nodes("vtkMRMLScalarVolumeNode"), nodes("vtkMRMLMarkupsROINode")
    assert volume.GetName() == "medvol: a"
    assert panel.notes.text == "warning: x"
    assert panel.measures.text == "2.88 ml"
    box.SetCenter(box.GetCenter()[0], box.GetCenter()[1], box.GetCenter()[2] + 4.0)
    work(panel, panel._propagate)
    assert panel.bench.state.anchor == Anchor(6, FIRST.boxes_px)
    panel.remark.text = "one slice up"
    work(panel, panel._save, "corrected")
    assert panel.bench.client.saved == [("corrected", Anchor(6, FIRST.boxes_px), "one slice up")]
    assert panel.answers.rows == [("the block | a.nii | corrected", "b"), ("the block | a.nii | damaged", "c")]
    assert len(nodes("vtkMRMLMarkupsROINode")) == len(nodes("vtkMRMLSegmentationNode")) == 1
    slicer.util.errorDisplay.assert_not_called()


def test_boxes_are_added_deleted_and_put_on_a_slice(panel):
    opened(panel)
    panel._try(panel.logic.add_box)()
    assert len(nodes("vtkMRMLMarkupsROINode")) == 2
    work(panel, panel._propagate)
    assert "slices 5 and 8" in slicer.util.errorDisplay.call_args.args[0]
    panel._try(panel.logic.put_here)()
    work(panel, panel._propagate)
    assert panel.bench.state.anchor.key_slice == 8
    slicer.mrmlScene.RemoveNode(nodes("vtkMRMLMarkupsROINode")[0])
    work(panel, panel._propagate)
    assert panel.bench.state.anchor == Anchor(8, ((15.0, 11.25, 25.0, 18.75),))
    panel._reset()
    assert panel.bench.read(panel.logic.regions()) == FIRST


def test_what_is_refused_is_one_sentence(panel):
    panel._try(panel.logic.add_box)()
    panel.address.text = "elsewhere"
    work(panel, panel._connect)
    work(panel, panel._propagate)
    told = [call.args[0] for call in slicer.util.errorDisplay.call_args_list]
    assert told[:2] == ["no answer is open; choose an answer, or ask a question", "a wrong address"]
    assert "no answer is open" in told[2]
    panel.address.text = "the address"
    work(panel, panel._connect)
    work(panel, panel._ask, True)
    assert "the question is empty" in slicer.util.errorDisplay.call_args.args[0]
    work(panel, panel._show_scan)
    assert len(nodes("vtkMRMLScalarVolumeNode")) == 1
    panel.cleanup()
