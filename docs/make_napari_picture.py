"""Draw the picture of docs/how-to/napari.md: a drawn scan, an answer, its box moved, the mask made again.

QT_QPA_PLATFORM=xcb xvfb-run -s "-screen 0 1600x1000x24" python docs/make_napari_picture.py docs/images/napari.png
"""

import sys
import tempfile
import time
from pathlib import Path

import napari
from napari_medvol.interface.anchors import Anchor
from napari_medvol.widget import AskAndCorrect
from qtpy.QtWidgets import QApplication

import medvol

SIZE = (1500, 950)
LONGEST_S = 300


def draw(folder: Path, out: Path) -> None:
    """Ask, move the box, propagate, and take the picture of the whole window."""
    case = medvol.DATASETS.get("PhantomDataset")(split="test", num_volumes=1)[0]
    scan = folder / "drawn-ct.nii.gz"
    medvol.write_volume(scan, case.volume)
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    widget = AskAndCorrect(viewer)
    viewer.window.add_dock_widget(widget, name="medvol: ask and correct", area="right")
    widget.session.target.setText(str(scan))
    widget.session.readings.setText(str(folder / "readings"))
    widget.start()
    wait(widget)
    widget.question.query.setText("the liver")
    widget.ask(policy=True)
    wait(widget)
    anchor = widget.state.anchor
    x1, y1, x2, y2 = anchor.boxes_px[0]
    widget.shown.show_boxes(Anchor(anchor.key_slice, ((x1 + 2, y1 + 2, x2 - 2, y2 + 2), *anchor.boxes_px[1:])))
    widget.propagate()
    wait(widget)
    widget.session.target.setText(scan.name)
    widget.session.readings.setText("readings")
    QApplication.processEvents()
    viewer.screenshot(str(out), canvas_only=False, flash=False)
    viewer.close()


def wait(widget: AskAndCorrect) -> None:
    """Until nothing is done any more; one work may begin the next."""
    began, quiet = time.monotonic(), 0
    while quiet < 20:
        QApplication.processEvents()
        time.sleep(0.02)
        quiet = 0 if widget.work.working else quiet + 1
        if time.monotonic() - began > LONGEST_S:
            raise SystemExit("medvol took too long")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        draw(Path(place), Path(sys.argv[1]))
