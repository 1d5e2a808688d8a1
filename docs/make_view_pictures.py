"""Draw the pictures of docs/how-to/view.md: a synthetic scan, three answers with one wrong box, read in Chromium.

python docs/make_view_pictures.py docs/images
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from playwright.sync_api import Page, sync_playwright

import medvol

SHAPE = (60, 256, 256)
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
QUERIES = {"spleen": "the spleen", "liver": "the organ that produces bile", "left kidney": "the left kidney"}


def write_answers(folder: Path) -> Path:
    """A synthetic scan and answers about it; the box of the spleen leaves a part of it out."""
    dataset = medvol.DATASETS.get("PhantomDataset")(split="test", num_volumes=1, shape=SHAPE)
    cases = {dataset[index].query.target: dataset[index] for index in range(len(dataset))}
    scan = folder / "phantom.nii.gz"
    volume = cases["liver"].volume
    nib.save(nib.Nifti1Image(np.rint(volume.voxels).astype(np.int16).transpose(2, 1, 0), volume.affine), scan)
    _, height, width = volume.shape
    for number, (target, query) in enumerate(QUERIES.items()):
        truth = medvol.label_anchor(cases[target].target)
        if target == "spleen":
            boxes = truth.boxes * 1.0
            boxes[:, 3] -= 30
            truth = medvol.Evidence(truth.key_slice, boxes, "the spleen lies on the left, behind the stomach")
        text = medvol.format_evidence(truth, height, width)
        segmenter = medvol.Segmenter(medvol.POLICIES.get("ScriptedPolicy")([text]))
        segmenter.segment(medvol.read_volume(scan, modality="CT"), query).save(folder / "answers", f"{number}_{target}")
    return folder / "answers"


def drag_lower_edge(page: Page) -> None:
    """Pull the lower edge of the first box down, as a person would."""
    for _ in range(3):
        page.keyboard.press("Alt+Control+ArrowDown")
        page.wait_for_timeout(700)
    page.wait_for_selector("#measures:not(.stale)")
    page.wait_for_timeout(1500)


def draw(address: str, out: Path) -> None:
    """The three pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.goto(address)
        page.wait_for_selector("body[data-answer][data-loaded='1']")
        drag_lower_edge(page)
        page.keyboard.press("o")
        page.wait_for_timeout(500)
        page.screenshot(path=str(out / "view-corrected.png"))
        page.fill("#remark", "the lower part was cut off")
        page.click("#correct:not([disabled])")
        page.wait_for_selector("#answers .state.corrected")
        page.click("#accept:not([disabled])")
        page.wait_for_selector("#answers .state.accepted")
        page.wait_for_timeout(2000)
        page.screenshot(path=str(out / "view-read.png"))
        tablet = browser.new_page(viewport={"width": 820, "height": 1180})
        tablet.goto(address)
        tablet.wait_for_selector("body[data-answer][data-loaded='1']")
        tablet.wait_for_timeout(2000)
        tablet.screenshot(path=str(out / "view-tablet.png"))
        browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-u", "-m", "medvol", "view", str(write_answers(Path(place))), "--no_browser"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = re.search(r"http://\S+", server.stdout.readline())
            draw(address[0], Path(sys.argv[1]))
        finally:
            server.terminate()
            server.wait()
