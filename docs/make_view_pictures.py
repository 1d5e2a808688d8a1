"""Draw the pictures of docs/how-to/view.md and the film of README in a real Chromium.

They show a synthetic scan and three answers, one of them with a wrong box.

python docs/make_view_pictures.py docs/images
"""

import re
import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

import medvol

SHAPE = (60, 256, 256)
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
FILM_SIZE, FILM_COLOURS, FILM_BYTES = (1000, 562), 128, 600_000
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


def drag_lower_edge(page: Page) -> list[bytes]:
    """Pull the lower edge of the first box down, as a person would; what is seen before, meanwhile and after."""
    seen = [page.screenshot()]
    for _ in range(3):
        page.keyboard.press("Alt+Control+ArrowDown")
        page.wait_for_timeout(150)
        seen.append(page.screenshot())
        page.wait_for_timeout(550)
    page.wait_for_selector("#measures:not(.stale)")
    page.wait_for_timeout(1500)
    return [*seen, page.screenshot()]


def save_film(seen: list[bytes], path: Path) -> None:
    """A film of at most 600 KB: the question with its evidence, the box that is moved, the mask that follows."""
    frames = [
        Image.open(BytesIO(picture)).convert("RGB").resize(FILM_SIZE, Image.Resampling.LANCZOS) for picture in seen
    ]
    palette = frames[-1].quantize(FILM_COLOURS, Image.Quantize.MAXCOVERAGE)  # the few pixels of a box keep their colour
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [2500, *[700] * (len(others) - 1), 3500]
    first.save(path, save_all=True, append_images=others, duration=times, loop=0, optimize=True)
    if path.stat().st_size > FILM_BYTES:
        raise SystemExit(f"{path} has {path.stat().st_size:,} bytes; a README holds {FILM_BYTES:,}")


def draw(address: str, out: Path) -> None:
    """The three pictures, and the film."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.goto(address)
        page.wait_for_selector("body[data-answer][data-loaded='1']")
        page.wait_for_timeout(2000)
        save_film(drag_lower_edge(page), out / "view-film.gif")
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
