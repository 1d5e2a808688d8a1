"""The dock widget in napari, against a real `medvol view`: open, ask, move a box, propagate, save.

The viewer has no window: Qt's offscreen platform draws no OpenGL. `docs/make_napari_picture.py` opens a whole one.
"""

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed; `make plugins` runs these tests")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed; `make plugins` runs these tests")
import napari.components
from napari.utils.notifications import notification_manager
from napari_medvol.interface.anchors import Anchor
from napari_medvol.layers import draw_boxes
from napari_medvol.widget import AskAndCorrect

import medvol

pytestmark = pytest.mark.slow
WAIT_MS = 60_000
MOVED = Anchor(6, ((12.0, 4.0, 28.0, 17.0),))
TWO = Anchor(6, ((12.0, 4.0, 28.0, 17.0),), (Anchor(9, ((2.0, 3.0, 8.0, 9.0),)),))


@pytest.fixture
def viewer(qtbot):
    """Layers and sliders of a viewer."""
    return napari.components.ViewerModel()


@pytest.fixture
def widget(viewer, server, qtbot):
    """The widget, connected to the session."""
    widget = AskAndCorrect(viewer)
    qtbot.addWidget(widget)
    widget.connect_to(server.address)
    wait(qtbot, widget)
    return widget


def wait(qtbot, widget):
    """Until nothing is done any more; one work may begin the next."""
    qtbot.waitUntil(lambda: not widget.work.working, timeout=WAIT_MS)
    qtbot.wait(50)
    qtbot.waitUntil(lambda: not widget.work.working, timeout=WAIT_MS)


def begin(qtbot, widget, query):
    """A question whose boxes the reader draws."""
    choose(widget, "scan.nii.gz")
    widget.question.query.setText(query)
    widget.question.begin.click()
    wait(qtbot, widget)


def choose(widget, name):
    widget.question.scans.setCurrentIndex(widget.question.scans.findText(name))


def draw(widget, anchor):
    widget.shown.evidence.data = []
    widget.shown.evidence.add_rectangles(draw_boxes(anchor))


def library(region, scan, anchor):
    volume = medvol.read_volume(scan)
    return region.propagate(volume, medvol.Evidence(anchor.key_slice, np.array(anchor.boxes_px)))


def errors(widget):
    return [note.message for note in notification_manager.records if str(note.severity) == "error"]


@pytest.fixture(autouse=True)
def no_old_notes():
    notification_manager.records.clear()


def test_the_scan_is_shown_as_medvol_reads_it(widget, qtbot, scan):
    begin(qtbot, widget, "where it lies")
    volume = medvol.read_volume(scan)
    image = widget.shown.image
    np.testing.assert_array_equal(image.data, volume.voxels)
    assert tuple(image.scale) == pytest.approx(volume.spacing)
    for zyx in ((0, 0, 0), (11, 29, 39), (3, 7, 2)):
        x, y, z, _ = volume.affine @ np.array([*zyx[::-1], 1.0])  # RAS
        np.testing.assert_allclose(image.data_to_world(zyx), (z, -y, -x))


def test_the_policys_answer_is_the_librarys(widget, qtbot, drawn):
    query = "the spleen of my zebra"
    choose(widget, "drawn.nii.gz")
    widget.question.query.setText(query)
    widget.question.ask.click()
    wait(qtbot, widget)
    assert errors(widget) == []
    segmenter = medvol.Segmenter("bundled:best")
    answer = segmenter.segment(drawn, query)
    boxes = tuple(tuple(box) for box in answer.evidence.boxes.tolist())
    assert widget.answer.original.anchor == Anchor(answer.evidence.key_slice, boxes)
    assert widget.shown.read_boxes() == widget.answer.original.anchor
    np.testing.assert_array_equal(widget.shown.mask.data, answer.mask)
    assert answer.confidence.warnings, "no training question has a zebra"
    for warning in answer.confidence.warnings:
        assert f"warning: {warning.detail}" in widget.question.notes.text()


def test_an_answer_that_gives_no_mask_is_told(widget, qtbot):
    """The scan has 12 slices, and the policy learned from larger ones."""
    choose(widget, "scan.nii.gz")
    widget.question.query.setText("the spleen")
    widget.question.ask.click()
    wait(qtbot, widget)
    assert errors(widget) == []
    assert "the answer gave no mask: bad_slice" in widget.question.notes.text()
    assert widget.shown.read_boxes() == Anchor()


def test_a_moved_box_gives_the_mask_of_the_library_and_a_record(widget, qtbot, scan, region, server):
    begin(qtbot, widget, "the block")
    draw(widget, Anchor(5, ((10.0, 6.0, 30.0, 18.0),)))
    widget.evidence.propagate.click()
    wait(qtbot, widget)
    first = library(region, scan, Anchor(5, ((10.0, 6.0, 30.0, 18.0),)))
    np.testing.assert_array_equal(widget.shown.mask.data, first)
    assert f"{first.sum() * 1.5 * 2 * 4 / 1000:.4g} ml" in widget.evidence.measures.text()
    assert "mean 80.0," in widget.evidence.measures.text()

    draw(widget, MOVED)
    assert "propagate" in widget.evidence.measures.text()
    widget.evidence.propagate.click()
    wait(qtbot, widget)
    expected = library(region, scan, MOVED)
    np.testing.assert_array_equal(widget.shown.mask.data, expected)

    parent = widget.answer.sha256
    widget.evidence.remark.setText("too low")
    widget.evidence.correct.click()
    wait(qtbot, widget)
    assert errors(widget) == []
    (path,) = [path for path in server.readings.glob("*_corrected_*.json") if "the-block" in path.name]
    record = json.loads(path.read_text())
    assert record["reading"]["parent_sha256"] == parent
    assert (record["reading"]["remark"], record["reading"]["reader"]) == ("too low", "A. Reader")
    assert record["evidence"]["boxes_px"] == [list(MOVED.boxes_px[0])]
    volume = medvol.read_volume(scan)
    np.testing.assert_array_equal(medvol.read_mask(path.with_name(record["mask"]["file"]), volume), expected)
    assert widget.answer.verdict == "corrected"
    assert "corrected" in widget.question.answers.currentText()

    widget.evidence.accept.click()
    wait(qtbot, widget)
    assert errors(widget) == []
    assert widget.answer.verdict == "accepted"


def test_boxes_follow_the_slice_that_is_shown(widget, qtbot, viewer):
    begin(qtbot, widget, "another block")
    draw(widget, Anchor(5, ((10.0, 6.0, 30.0, 18.0), (2.0, 2.0, 8.0, 8.0))))
    widget.shown.go_to(8)
    assert viewer.dims.point[0] == pytest.approx(widget.shown.image.translate[0] + 8 * 4.0)
    widget.evidence.here.click()
    assert widget.shown.read_boxes() == Anchor(8, ((10.0, 6.0, 30.0, 18.0), (2.0, 2.0, 8.0, 8.0)))
    widget.shown.evidence.selected_data = {0}
    widget.shown.evidence.remove_selected()
    assert widget.shown.read_boxes() == Anchor(8, ((2.0, 2.0, 8.0, 8.0),))
    widget.evidence.reset.click()
    assert widget.shown.read_boxes() == Anchor()


def test_errors_are_one_sentence(widget, qtbot):
    widget.question.query.setText("   ")
    widget.question.ask.click()
    begin(qtbot, widget, "a third block")
    draw(widget, Anchor(5, ((10.0, 6.0, 30.0, 18.0),)))
    widget.shown.evidence.add_rectangles(draw_boxes(Anchor(7, ((10.0, 6.0, 30.0, 18.0),))))
    widget.evidence.propagate.click()
    widget.evidence.reset.click()
    widget.evidence.correct.click()
    wait(qtbot, widget)
    widget.connect_to("https://example.org/key/")
    empty, slices, nothing, address = errors(widget)
    assert "the question is empty" in empty
    assert "slices 5 and 7" in slices
    assert "nothing was corrected" in nothing
    assert "no address of `medvol view`" in address


def test_layers_that_the_reader_removed_come_back(widget, qtbot, viewer):
    begin(qtbot, widget, "the block of before")
    viewer.layers.clear()
    widget.open(widget.answer.answer_id)
    wait(qtbot, widget)
    assert [layer.name for layer in viewer.layers] == ["medvol: scan.nii.gz", "mask", "evidence"]


def test_a_server_that_is_gone_is_told(viewer, qtbot, scan, tmp_path):
    widget = AskAndCorrect(viewer)
    widget.session.target.setText(str(scan))
    widget.session.readings.setText(str(tmp_path / "readings"))
    widget.session.start.click()
    assert widget.work.working
    assert not widget.session.isEnabled()
    wait(qtbot, widget)
    assert widget.shown.scan_id
    (running,) = widget._servers
    running.stop()
    running._process.wait(20)
    begin(qtbot, widget, "the block")
    assert "nobody answers at 127.0.0.1" in errors(widget)[-1]
    assert widget.session.isEnabled()


def test_starting_can_be_cancelled(viewer, qtbot, scan, tmp_path):
    widget = AskAndCorrect(viewer)
    widget.session.target.setText(str(scan))
    widget.session.start.click()
    qtbot.wait(300)
    widget.work.cancel.click()
    wait(qtbot, widget)
    assert widget.client is None
    assert errors(widget) == []


def test_a_layer_of_another_reader_names_its_file(viewer, qtbot):
    widget = AskAndCorrect(viewer)
    viewer.add_image(np.zeros((3, 4, 5)))
    widget.session.layer.click()
    assert "not read from a file" in errors(widget)[-1]
    viewer.layers[0]._source = viewer.layers[0].source.model_copy(update={"path": "scans/a.nii.gz"})
    widget.session.layer.click()
    assert widget.session.target.text() == "scans/a.nii.gz"


def test_the_manifest_is_valid_and_finds_the_widget():
    npe2 = pytest.importorskip("npe2")
    from pathlib import Path

    import napari_medvol

    manifest = npe2.PluginManifest.from_file(Path(napari_medvol.__file__).with_name("napari.yaml"))
    manifest.validate_imports()
    (command,) = manifest.contributions.commands
    assert command.python_name == f"{AskAndCorrect.__module__}:{AskAndCorrect.__name__}"


def test_a_scan_of_another_server_is_shown_anew(widget, qtbot, scan, server):
    """Its id is made of the path, which another machine or another working folder may have for another scan."""
    begin(qtbot, widget, "what is there")
    widget.shown.image.data = np.zeros_like(widget.shown.image.data)  # as another scan of the same path
    widget.connect_to(server.address)
    wait(qtbot, widget)
    choose(widget, "scan.nii.gz")
    begin(qtbot, widget, "what is there")
    volume = medvol.read_volume(scan)
    np.testing.assert_array_equal(widget.shown.image.data, volume.voxels)


def test_an_answer_of_several_anchors_is_shown_and_kept(widget, qtbot, server):
    begin(qtbot, widget, "two blocks")
    widget.answer = dataclasses.replace(widget.answer, draft=TWO)
    draw(widget, TWO)
    widget.evidence.correct.click()
    wait(qtbot, widget)
    assert errors(widget) == []
    assert widget.answer.current.anchor == TWO
    assert widget.shown.read_boxes(several=True) == TWO
