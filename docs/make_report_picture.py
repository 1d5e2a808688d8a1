"""Draw ``docs/images/report.png``: a report of a bundled policy, of the centre box, and of imported masks, in Chromium.

    python docs/make_report_picture.py

The scans are drawn test phantoms. The imported masks are those that follow from the true anchors, laid out as nnU-Net
would write them.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml
from PIL import Image
from playwright.sync_api import Page, sync_playwright

PICTURE = Path(__file__).resolve().parent / "images" / "report.png"
RUNS = {"bundled-best": "bundled:best", "centre-box": "CentreBoxPolicy", "true-anchors": "OraclePolicy"}
VOLUMES = 12
RELATIONAL = ("kidneys", "kidney with lesion", "kidney without lesion")
"""Targets that are no label of a label map."""
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WIDE, HIGH = 1000, 1560


def run_medvol(*arguments: object) -> None:
    """Run a command."""
    subprocess.run([sys.executable, "-m", "medvol", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def write_settings(folder: Path, name: str, policy: str) -> Path:
    """An experiment that tests a policy on phantoms."""
    evaluation = {"max_new_tokens": 64, "error_budget": True}
    model = {"policy": policy, "propagator": "RegionPropagator", "evaluation": evaluation}
    questions = {"phrasing": "both", "absent_share": 0.16}
    test = {"split": "test", "num_volumes": VOLUMES, "questions": questions}
    trainer = {"default_root_dir": str(folder / name), "accelerator": "cpu", "logger": False}
    settings = {
        "model": {"class_path": "EvaluationModule", "init_args": model},
        "data": {
            "class_path": "CaseDataModule",
            "init_args": {"test": {"class_path": "PhantomDataset", "init_args": test}},
        },
        "trainer": trainer,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def lay_out(run: Path, folder: Path) -> Path:
    """Kept masks of a run as nnU-Net writes them: a label map a scan, and the names of its labels."""
    cases = json.loads((run / "cases.json").read_text())
    asked = [case for case in cases if case["mask_file"] and case["present"] and case["target"] not in RELATIONAL]
    labels = {name: number for number, name in enumerate(sorted({case["target"] for case in asked}), 1)}
    folder.mkdir()
    for patient in sorted({case["patient_id"] for case in asked}):
        own = sorted((case for case in asked if case["patient_id"] == patient), key=lambda case: -case["true_ml"])
        images = [nib.load(run / case["mask_file"]) for case in own]
        label_map = np.zeros(images[0].shape, np.uint8)
        for case, image in zip(own, images, strict=True):
            label_map[np.asarray(image.dataobj) > 0] = labels[case["target"]]
        nib.save(nib.Nifti1Image(label_map, images[0].affine), folder / f"{patient}.nii.gz")
    both = [labels["left kidney"], labels["right kidney"]]
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **labels, "kidneys": both}}))
    return folder


def make_report(folder: Path) -> Path:
    """Test, import and report."""
    settings = {name: write_settings(folder, name, policy) for name, policy in RUNS.items()}
    for path in settings.values():
        run_medvol("test", "--config", path)
    masks = lay_out(folder / "true-anchors", folder / "masks")
    imported = folder / "nnunet-layout"
    run_medvol("evaluate", "--predictions", masks, "--data", settings["bundled-best"], "--out", imported)
    report = folder / "report.html"
    run_medvol("report", folder / "bundled-best", folder / "centre-box", imported, "--html", report)
    return report


def shoot(page: Page, selector: str) -> Image.Image:
    """What is on the screen when an element is at its top."""
    page.locator(selector).first.evaluate("node => node.scrollIntoView({behavior: 'instant'})")
    page.wait_for_timeout(1500)
    return Image.open(BytesIO(page.screenshot()))


def draw(report: Path) -> Image.Image:
    """Plots on the left, a case on the right."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": WIDE, "height": HIGH})
        page.goto(report.as_uri())
        left = shoot(page, "#scores .strips")
        case = "article[aria-label='median case of bundled-best']"
        page.locator(f"{case} .open").click()
        page.locator(f"{case} .planes[data-ready]").wait_for(state="attached", timeout=120_000)
        right = shoot(page, case)
        browser.close()
    both = Image.new("RGB", (2 * WIDE, HIGH), "white")
    both.paste(left, (0, 0))
    both.paste(right, (WIDE, 0))
    return both.resize((2 * WIDE * 6 // 10, HIGH * 6 // 10), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        draw(make_report(Path(place))).save(PICTURE, optimize=True)
