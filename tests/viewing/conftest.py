"""Answers about two small scans in a folder, and a desk over them."""

import atexit
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from starlette.testclient import TestClient

from medvol.imaging.reading import read_volume
from medvol.inference.segmenter import Segmenter
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.terminal.progress import counted, show_progress
from medvol.viewing.desk import Desk
from medvol.viewing.interface import Interface
from medvol.viewing.jobs import Jobs
from medvol.viewing.opening import open_target
from medvol.viewing.reading_folder import ReadingFolder

BOX = '<think>bright</think><answer>[{"slice": 3, "bbox_2d_list": [[250, 200, 750, 600]]}]</answer>'
"""On a slice of 40 columns and 30 rows: columns 10 to 30, rows 6 to 18."""
KEY = "the-key"
HOSTILE = '<img src=x onerror="document.title=1"></script><b>liver</b>'


def write_scan(path: Path, offset: float = 0.0) -> Path:
    """A CT-like NIfTI whose axes run to the patient's right, front and feet; a bright block in it."""
    voxels = np.full((40, 30, 12), -100.0, np.float32)
    voxels[10:30, 12:24, 4:10] = 80.0 + offset
    voxels[0, 0, 0] = -1000.0
    affine = np.diag([1.5, 2.0, -4.0, 1.0])
    affine[:3, 3] = (-20.0, -30.0, 400.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def answer_folder(place: Path) -> Path:
    """Three answers about two scans, in folders of their own."""
    shutil.copytree(_drawn(), place, dirs_exist_ok=True)
    for record in (place / "answers").glob("*.json"):
        record.write_text(record.read_text().replace(str(_drawn()), str(place)))
    return place / "answers"


@cache
def _drawn() -> Path:
    """The same three answers, made once."""
    place = Path(tempfile.mkdtemp(prefix="medvol-view-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    policy = ScriptedPolicy([BOX], {"the tail": "<answer>[]</answer>"})
    segmenter = Segmenter(policy, ExtrudePropagator(half_depth_slices=1))
    folder = place / "answers"
    for number, queries in enumerate((["the block", "the tail"], [HOSTILE])):
        scan = write_scan(place / "scans" / f"scan{number}.nii.gz", number)
        answered = segmenter.segment_many(read_volume(scan, modality="CT"), queries)
        for letter, answer in zip("ab", answered, strict=False):
            answer.save(folder, f"case{number}{letter}")
    return place


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return answer_folder(tmp_path)


class SlowPropagator(ExtrudePropagator):
    """Counts how often it is called, and says how far it is, slice after slice."""

    def __init__(self, pause_s: float = 0.05, half_depth_slices: int = 1) -> None:
        super().__init__(half_depth_slices)
        self.pause_s = pause_s
        self.calls = 0

    def propagate(self, volume, evidence, z_range=None):
        self.calls += 1
        for _ in counted(range(100), "slowly", 100, "slices"):
            time.sleep(self.pause_s)
        return super().propagate(volume, evidence, z_range)


def make_desk(target: Path, **others: Any) -> Desk:
    opened = open_target(target, read_volume)
    propagator = others.pop("propagator", ExtrudePropagator(half_depth_slices=1))
    readings = ReadingFolder(others.pop("out", opened.readings))
    return Desk(opened.entries, opened.scans, propagator, readings, read_volume, problems=opened.problems, **others)


class Api:
    """The interface of a desk, as a client sees it."""

    def __init__(self, desk: Desk, key: str = KEY) -> None:
        self.desk = desk
        self.jobs = Jobs()
        self.client = TestClient(Interface(desk, self.jobs).build(KEY), f"http://127.0.0.1:8000/{key}/")

    def get(self, path: str, **others: Any) -> Any:
        return self.client.get(path, **others)

    def post(self, path: str, body: Any = None, **others: Any) -> Any:
        """What a request comes to in the end, however slow the machine is."""
        reply = self.begin(path, body, **others)
        while reply.status_code == 202:
            reply = self.get(f"api/jobs/{reply.json()['job']}?wait=10")
        return reply

    def begin(self, path: str, body: Any = None, **others: Any) -> Any:
        """The first reply to a request, which may tell of a job that goes on."""
        return self.client.post(path, json={} if body is None else body, **others)

    def first(self, query: str) -> dict[str, Any]:
        """The answer to a query, opened."""
        found = next(row for row in self.get("api/answers").json()["answers"] if row["query"] == query)
        return self.post(f"api/answers/{found['id']}/open").json()["result"]

    def close(self) -> None:
        self.jobs.close()


@pytest.fixture
def api(answers: Path):
    made = Api(make_desk(answers, reader="A. Reader"))
    with show_progress(made.jobs.display):
        yield made
    made.close()
