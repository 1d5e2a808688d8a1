"""From a .nii.gz of 512 x 512 x 200 to 64 windowed slices: medvol's slice cache against MONAI and torchio.

    python benchmarks/loading.py [--quick] [--rounds 3]

The work: read the scan, draw 64 of its axial slices afresh (which 64 is a matter of the turn, as in training), and map
a soft-tissue window to float32 in [0, 1]. Cold: nothing is kept yet, and what a library keeps is written within the
time. Warm: a later epoch in the same process. MONAI keeps what ``LoadImage`` made with ``PersistentDataset``, in int16,
its faster form; torchio keeps nothing on disk. Every library runs in processes of its own, turn by turn, on one thread.
The peak memory of a process counts its imports; what they alone take stands beside it.

``monai-fixed`` stands beside them and is not in the ratios: the very same 64 slices every time, so that MONAI keeps the
finished drawing of them and has nothing left to do.

Prints a ratio against the faster peer and its bound; no time makes it fail. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import need, refuse

LOW, HIGH = -160.0, 240.0
SLICES = 64
PEERS = ("monai", "torchio")
LIBRARIES = ("medvol", *PEERS, "monai-fixed")
WARM_BOUND, COLD_BOUND, MEMORY_BOUND = 5.0, 1.0, 0.5
Load = Callable[[np.ndarray], np.ndarray]


def make_scan(path: Path, size: int, depth: int) -> None:
    """A body with organs of smooth texture and noise, int16, stored from right to left and front to back as LPS."""
    import nibabel as nib

    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    body = (x / 0.85) ** 2 + (y / 0.7) ** 2 < 1
    voxels = np.empty((depth, size, size), np.int16)
    for z in range(depth):
        organs = 60 * np.sin(5 * x + z / 40) * np.cos(4 * y - z / 30)
        voxels[z] = np.where(body, 40 + organs + rng.normal(0, 12, body.shape), -1000 + rng.normal(0, 3, body.shape))
    image = nib.Nifti1Image(voxels.transpose(2, 1, 0), np.diag([-0.8, -0.8, 1.5, 1.0]))
    image.set_qform(image.affine, 1)
    nib.save(image, path)


def sampled(depth: int, turn: int) -> np.ndarray:
    """Slices drawn in one turn: one in each of 64 equal spans."""
    rng = np.random.default_rng(turn)
    edges = np.linspace(0, depth, min(SLICES, depth) + 1)
    return np.unique(np.floor(rng.uniform(edges[:-1], edges[1:])).astype(int))


def medvol_loader(scan: Path, folder: Path) -> Load:
    """The cache that ``NiftiDataset`` uses, and the drawing that prompts are made with."""
    from medvol.imaging.cache.slice_cache import SliceCache
    from medvol.imaging.slices import draw_slices

    cache = SliceCache(folder)

    def load(indices: np.ndarray) -> np.ndarray:
        volume = cache.read_volume(scan, "CT")
        _, height, width = volume.shape
        return draw_slices(volume, indices.tolist(), ["soft_tissue"], height, width).pixels[:, 0]

    return load


def monai_loader(scan: Path, folder: Path) -> Load:
    """The whole scan is kept, the slices are drawn from it."""
    import torch
    from monai.data import PersistentDataset
    from monai.transforms import LoadImage, ScaleIntensityRange

    torch.set_num_threads(1)
    read = LoadImage(image_only=True, ensure_channel_first=True, dtype=np.int16)
    scale = ScaleIntensityRange(LOW, HIGH, 0.0, 1.0, clip=True)
    data = PersistentDataset([str(scan)], read, cache_dir=folder)

    def load(indices: np.ndarray) -> np.ndarray:
        drawn = torch.as_tensor(data[0][0])[:, :, indices].permute(2, 1, 0)
        return np.ascontiguousarray(scale(drawn.float()).numpy())

    return load


def monai_fixed_loader(scan: Path, folder: Path) -> Load:
    """The finished drawing of one choice of slices is kept."""
    import torch
    from monai.data import PersistentDataset
    from monai.transforms import Compose, Lambda, LoadImage, ScaleIntensityRange

    torch.set_num_threads(1)
    chosen: list[np.ndarray] = []
    draw = Lambda(lambda voxels: voxels[0].as_tensor()[:, :, chosen[0]].permute(2, 1, 0).float().contiguous())
    read = LoadImage(image_only=True, ensure_channel_first=True, dtype=np.int16)
    steps = Compose([read, draw, ScaleIntensityRange(LOW, HIGH, 0.0, 1.0, clip=True)])
    data = PersistentDataset([str(scan)], steps, cache_dir=folder)

    def load(indices: np.ndarray) -> np.ndarray:
        chosen[:] = chosen or [indices]
        return np.asarray(data[0].numpy())

    return load


def torchio_loader(scan: Path, folder: Path) -> Load:
    """The scan is read each time."""
    import torch
    import torchio

    torch.set_num_threads(1)
    scale = torchio.RescaleIntensity((0.0, 1.0), in_min_max=(LOW, HIGH))

    def load(indices: np.ndarray) -> np.ndarray:
        drawn = torchio.ScalarImage(scan).data[:, :, :, indices].float()
        return np.ascontiguousarray(
            scale(torchio.ScalarImage(tensor=drawn)).data[0].permute(2, 1, 0).clamp(0, 1).numpy()
        )

    return load


LOADERS = {
    "medvol": medvol_loader,
    "monai": monai_loader,
    "monai-fixed": monai_fixed_loader,
    "torchio": torchio_loader,
}


def peak_mb() -> float:
    """Peak memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(library: str, scan: Path, folder: Path, depth: int, warm: int) -> dict[str, Any]:
    """Times of one cold and several warm turns in this process; the sums show that all do the same work."""
    warnings.filterwarnings("ignore")
    load = LOADERS[library](scan, folder)
    imports = peak_mb()
    times, sums = [], []
    for turn in range(1 + warm):
        indices = sampled(depth, turn)
        start = time.perf_counter()
        pixels = load(indices)
        times.append(time.perf_counter() - start)
        sums.append(float(pixels.mean(dtype=np.float64)))
        del pixels
    return {"cold": times[0], "warm": min(times[1:]), "peak": peak_mb(), "imports": imports, "sums": sums}


def run_in_process(library: str, scan: Path, depth: int, warm: int) -> dict[str, Any]:
    """Measure in a fresh process with an empty folder to keep things in."""
    folder = Path(tempfile.mkdtemp(prefix="loading-", dir=scan.parent))
    try:
        command = [sys.executable, __file__, "--measure", library, str(scan), str(folder), str(depth), str(warm)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            refuse(f"{library} could not be measured: {last}")
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result
    finally:
        shutil.rmtree(folder)


def compare(scan: Path, depth: int, rounds: int, warm: int) -> dict[str, dict[str, float]]:
    """Best of several rounds for each library; in every round each has its turn."""
    found: dict[str, list[dict[str, Any]]] = {library: [] for library in LIBRARIES}
    for turn in range(rounds):
        for library in LIBRARIES if turn % 2 == 0 else LIBRARIES[::-1]:
            found[library].append(run_in_process(library, scan, depth, warm))
    for peer in PEERS:
        if not np.allclose(found[peer][0]["sums"], found["medvol"][0]["sums"], atol=1e-6):
            raise SystemExit(f"{peer} and medvol do not draw the same slices; nothing is compared")
    keys = ("cold", "warm", "peak", "imports")
    return {library: {key: min(run[key] for run in runs) for key in keys} for library, runs in found.items()}


def report(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """Print the table and the ratios."""
    print(f"{'library':<12} {'cold s':>8} {'warm s':>8} {'peak MB':>8} {'of it imports':>14}")
    for library, row in found.items():
        print(f"{library:<12} {row['cold']:>8.3f} {row['warm']:>8.3f} {row['peak']:>8.0f} {row['imports']:>14.0f}")
    ours = found["medvol"]
    best = {key: min(found[peer][key] for peer in PEERS) for key in ("cold", "warm", "peak")}
    ratios = {
        "warm_ratio": round(best["warm"] / ours["warm"], 2),
        "cold_ratio": round(best["cold"] / ours["cold"], 2),
        "memory_ratio": round(ours["peak"] / best["peak"], 2),
    }
    print(f"warm: {ratios['warm_ratio']} times as fast as the faster peer (bound: at least {WARM_BOUND})")
    print(f"cold: {ratios['cold_ratio']} times as fast as the faster peer (bound: at least {COLD_BOUND})")
    print(f"peak memory: {ratios['memory_ratio']} of the smaller peer's (bound: at most {MEMORY_BOUND})")
    fixed = found["monai-fixed"]["warm"] / ours["warm"]
    print(f"beside it, warm, where MONAI keeps one finished drawing: {fixed:.2f} times as fast")
    return ratios


def main() -> None:
    """Run the comparison, or one measurement of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a small scan, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", type=int, default=3, help="warm turns a process")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        library, scan, folder, depth, warm = options.measure
        print(json.dumps(measure(library, Path(scan), Path(folder), int(depth), int(warm))))
        return
    need(*PEERS)
    size, depth, rounds = (128, 80, 1) if options.quick else (512, 200, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / "scan.nii.gz"
        make_scan(scan, size, depth)
        print(f"{size} x {size} x {depth} int16, {scan.stat().st_size / 1e6:.0f} MB in the file, {rounds} round(s)")
        print(json.dumps(report(compare(scan, depth, rounds, options.warm))))


if __name__ == "__main__":
    main()
