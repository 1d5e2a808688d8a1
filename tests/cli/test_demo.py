"""``medvol demo``, and answers of the policy that comes with medvol."""

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import medvol
from medvol.cli import main
from medvol.imaging.writing import write_volume

QUERIES = ("which large gland produces bile", "which kidney is free of any lesion", "the beating organ of the chest")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a demo that was run without a network."""
    folder = tmp_path_factory.mktemp("demo") / "a new one"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the demo reaches for a network"))
        assert main(["demo", str(folder)]) == 0
    return folder


def records(folder: Path) -> dict[str, dict]:
    found = [json.loads(path.read_text()) for path in (folder / "answers").glob("scan_*.json")]
    return {record["query"]: record for record in found}


def mask_of(folder: Path, record: dict) -> np.ndarray:
    return np.asarray(nib.load(folder / "answers" / record["mask"]["file"]).dataobj) > 0


def truth_of(target: str) -> np.ndarray:
    cases = medvol.DATASETS.get("PhantomDataset")(split="val", num_volumes=1, lesion_share=1.0)
    case = next(case for case in map(cases.__getitem__, range(len(cases))) if case.query.target == target)
    return case.target.transpose(2, 1, 0)


def test_three_questions_are_answered_with_mask_record_and_picture(demo: Path) -> None:
    found = records(demo)
    assert all(any(query.startswith(start) for query in found) for start in QUERIES)
    assert len(found) == len(list((demo / "answers").glob("*.png"))) == len(list(demo.glob("answers/*.nii.gz"))) == 3
    assert all("drawn_scans_only" in {row["code"] for row in r["confidence"]["warnings"]} for r in found.values())
    assert json.loads((demo / "answers" / "summary.json").read_text())["counts"]["done"] == 3


@pytest.mark.parametrize(("query", "target"), [(QUERIES[0], "liver"), (QUERIES[1], "kidney without lesion")])
def test_the_masks_lie_where_the_organs_were_drawn(query: str, target: str, demo: Path) -> None:
    mask, truth = mask_of(demo, records(demo)[query]), truth_of(target)
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.7


def test_what_the_scan_does_not_show_is_said_to_be_absent(demo: Path) -> None:
    (record,) = [record for query, record in records(demo).items() if query.startswith(QUERIES[2])]
    assert record["evidence"]["absent"]
    assert not mask_of(demo, record).any()


def test_a_demo_that_is_there_is_refused_and_made_again_with_overwrite(
    demo: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in demo.rglob("*") if path.suffix in (".gz", ".png")}
    assert "--overwrite" in refused("demo", demo)
    assert "is a file" in refused("demo", demo / "scan.nii.gz")
    assert main(["demo", str(demo), "--overwrite"]) == 0
    assert before == {path.name: path.read_bytes() for path in demo.rglob("*") if path.suffix in (".gz", ".png")}
    text = capsys.readouterr().out
    assert text.count("picture") == 3
    assert "it is not in the scan, which is right" in text
    assert "medvol segment --evidence" in text
    answers = demo / "answers"
    assert f"`medvol view '{answers}'`, which needs once: pip install" in text


def test_segment_without_a_policy_takes_the_bundled_one_and_says_so(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["segment", str(demo / "scan.nii.gz"), QUERIES[0], "--out", str(tmp_path)]) == 0
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("no policy was chosen, so the one that comes with medvol answers: bundled:best, which knows")
    assert said.endswith("knows synthetic scans only")
    assert "warning: the policy was trained on synthetic scans only" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert record["policy"]["model"] == "bundled:best"
    assert "drawn_scans_only" in {row["code"] for row in record["confidence"]["warnings"]}
    assert record["mask"] == {**records(demo)[QUERIES[0]]["mask"], "file": record["mask"]["file"]}


def test_a_segmenter_without_a_policy(demo: Path, caplog: pytest.LogCaptureFixture) -> None:
    answer = medvol.Segmenter().segment(demo / "scan.nii.gz", QUERIES[0])
    assert "bundled:best" in caplog.text
    assert np.array_equal(answer.mask.transpose(2, 1, 0), mask_of(demo, records(demo)[QUERIES[0]]))


def test_a_real_looking_scan_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A body of twice the size has another field of view."""
    volume = medvol.DATASETS.get("PhantomDataset")(split="val", num_volumes=1)[0].volume
    write_volume(tmp_path / "large.nii.gz", replace(volume, affine=volume.affine @ np.diag([2, 2, 2, 1])))
    main(
        [
            "segment",
            str(tmp_path / "large.nii.gz"),
            "the liver",
            "--policy",
            "bundled:best",
            "--out",
            str(tmp_path / "out"),
        ]
    )
    assert "field of view unlike anything" in capsys.readouterr().out
