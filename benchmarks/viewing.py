"""How fast `medvol view` is: a large CT on the screen, the mask after a box is let go, and the memory of both ends.

    python benchmarks/viewing.py --scan ct.nii.gz --propagators RegionPropagator LiteMedSAMPropagator

Without ``--scan`` a CT of 512 x 512 x 400 is drawn. The browser is a Chromium without a window, see
``tests/fixtures/chromium.py``. A propagator is timed with the features of a first anchor in memory, and without.
"""

import argparse
import json
import resource
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import uvicorn

import medvol
from medvol.viewing.desk import Desk
from medvol.viewing.interface import Interface
from medvol.viewing.jobs import Jobs
from medvol.viewing.opening import open_target
from medvol.viewing.reading_folder import ReadingFolder

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fixtures"))
KEY = "bench"


def draw_ct(path: Path, shape: tuple[int, int, int]) -> None:
    """A CT-like scan with noise, (X, Y, Z), and a bright ellipsoid."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(-120, -80, shape, np.int16)
    x, y, z = np.ogrid[: shape[0], : shape[1], : shape[2]]
    inside = sum(((axis - n / 2) / (n / 5)) ** 2 for axis, n in zip((x, y, z), shape, strict=True)) < 1
    voxels[inside] = rng.integers(70, 110, int(inside.sum()), np.int16)
    image = nib.Nifti1Image(voxels, np.diag([-0.8, -0.8, 1.0, 1.0]))
    nib.save(image, path)


def write_answer(scan: Path, folder: Path, propagator: medvol.Propagator) -> medvol.Volume:
    """An answer with one box in the middle of the scan."""
    volume = medvol.read_volume(scan, modality="CT")
    text = f'<answer>[{{"slice": {volume.shape[0] // 2}, "bbox_2d_list": [[300, 300, 700, 700]]}}]</answer>'
    policy = medvol.POLICIES.get("ScriptedPolicy")([text])
    medvol.Segmenter(policy, propagator).segment(volume, "the target").save(folder, "answer")
    return volume


def renderer_mib() -> float:
    """Resident memory of the largest process that draws a page."""
    found = [0.0]
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if b"--type=renderer" in (place / "cmdline").read_bytes():
                resident = int((place / "statm").read_text().split()[1])
                found.append(resident * resource.getpagesize() / 2**20)
        except OSError:
            continue
    return max(found)


def time_page(folder: Path) -> dict[str, float]:
    """Seconds from the page's load to the first slice and to the last voxel; MiB of the page and of the server."""
    from chromium import SOFTWARE_WEBGL, find_chromium, start_playwright

    opened = open_target(folder, medvol.read_volume)
    propagator = medvol.PROPAGATORS.get("RegionPropagator")()
    desk = Desk(opened.entries, opened.scans, propagator, ReadingFolder(opened.readings), medvol.read_volume)
    desk.shelf.get(opened.entries[0].scan)
    jobs, listener = Jobs(), socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(Interface(desk, jobs).build(KEY), lifespan="off", ws="none", log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with start_playwright() as playwright:
            flags = ["--no-sandbox", *SOFTWARE_WEBGL]
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=flags)
            page = browser.new_page(viewport={"width": 1366, "height": 768})
            began = time.monotonic()
            page.goto(f"http://127.0.0.1:{listener.getsockname()[1]}/{KEY}/")
            page.wait_for_selector("body[data-drawn][data-loaded]:not([data-loaded='0'])", timeout=60_000)
            first = time.monotonic() - began
            page.wait_for_selector("body[data-answer]", timeout=60_000)
            answer = time.monotonic() - began
            page.wait_for_selector("body[data-loaded='1']", timeout=60_000)
            whole = time.monotonic() - began
            used = renderer_mib()
            box = page.locator("#axial").bounding_box()
            page.mouse.move(box["x"] + 40, box["y"] + 40)
            began = time.monotonic()
            steps = min(100, int(page.get_attribute("body", "data-drawn")))
            last = int(page.get_attribute("body", "data-drawn")) - steps
            for _ in range(steps):
                page.mouse.wheel(0, 100)
            page.wait_for_selector(f"body[data-drawn='{last}']", timeout=60_000)
            scroll = (time.monotonic() - began) / max(1, steps)
            browser.close()
    finally:
        server.should_exit = True
        thread.join()
        jobs.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "first_slice_s": round(first, 2),
        "masks_and_measures_s": round(answer, 2),
        "whole_scan_s": round(whole, 2),
        "scroll_ms_a_slice": round(1000 * scroll, 1),
        "page_mib": round(used),
        "server_peak_mib": round(peak),
    }


def time_release(folder: Path, name: str, settings: dict[str, object]) -> dict[str, float]:
    """Seconds from a moved box to its mask: the first of a session, and one after features are in memory."""
    opened = open_target(folder, medvol.read_volume)
    propagator = medvol.PROPAGATORS.get(name)(**settings)
    desk = Desk(opened.entries, opened.scans, propagator, ReadingFolder(opened.readings), medvol.read_volume)
    entry = opened.entries[0]
    volume = desk.shelf.get(entry.scan).volume
    seconds = []
    for shift in (1.0, 2.0):
        evidence = medvol.Evidence(entry.record.evidence.key_slice, entry.record.evidence.boxes + shift)
        began = time.monotonic()
        desk.propagate(entry, evidence)
        seconds.append(round(time.monotonic() - began, 2))
    return {"slices": volume.shape[0], "first_s": seconds[0], "warm_s": seconds[1]}


def run(scan: Path | None, propagators: list[str], settings: dict[str, object], page: bool) -> dict[str, object]:
    """Everything that was asked for."""
    with tempfile.TemporaryDirectory() as place:
        if scan is None:
            scan = Path(place) / "ct.nii.gz"
            draw_ct(scan, (512, 512, 400))
        folder = Path(place) / "answers"
        volume = write_answer(scan, folder, medvol.PROPAGATORS.get("ExtrudePropagator")())
        found: dict[str, object] = {"shape_zyx": list(volume.shape)}
        del volume
        if page:
            found["page"] = time_page(folder)
        found["release"] = {name: time_release(folder, name, settings) for name in propagators}
        return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--propagators", nargs="*", default=["RegionPropagator"])
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON of settings for the propagators")
    parser.add_argument("--no_page", action="store_true", help="time propagators only")
    options = parser.parse_args()
    print(json.dumps(run(options.scan, options.propagators, options.settings, not options.no_page), indent=1))
