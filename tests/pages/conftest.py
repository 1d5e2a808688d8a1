"""Pages of known answers, and browsers that open them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import SOFTWARE_WEBGL, Browser, launch
from left_block import HOSTILE, HOSTILE_WORDS, anchor, write_left_block

import medvol
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator


@pytest.fixture(scope="session")
def left_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_left_block(tmp_path_factory.mktemp("patient-jane-doe") / "ct scan.nii.gz")


@pytest.fixture(scope="session")
def left_volume(left_scan: Path) -> medvol.Volume:
    return medvol.read_volume(left_scan, modality="CT")


@pytest.fixture(scope="session")
def left_segmenter() -> medvol.Segmenter:
    by_query = {"the tail": "<answer>[]</answer>", "nonsense": "I cannot tell", HOSTILE: anchor(HOSTILE_WORDS)}
    return medvol.Segmenter(ScriptedPolicy([anchor("bright")], by_query), ExtrudePropagator(half_depth_slices=2))


@pytest.fixture(scope="session")
def left_answer(left_volume: medvol.Volume, left_segmenter: medvol.Segmenter) -> medvol.Segmentation:
    return left_segmenter.segment(left_volume, "the block")


@pytest.fixture(scope="session")
def one_page(left_answer: medvol.Segmentation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with one answer."""
    return medvol.write_answer_page([left_answer], tmp_path_factory.mktemp("pages") / "one.html")


@pytest.fixture(scope="session")
def many_page(
    left_volume: medvol.Volume, left_segmenter: medvol.Segmenter, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A page with two answers, one of them hostile, one absent target and one failure."""
    answers: list[Any] = left_segmenter.segment_many(left_volume, ["the block", HOSTILE, "the tail"])
    with pytest.raises(medvol.EvidenceParseError) as failure:
        left_segmenter.segment(left_volume, "nonsense")
    answers.append(("nonsense", failure.value))
    return medvol.write_answer_page(answers, tmp_path_factory.mktemp("pages") / "many.html")


@pytest.fixture(scope="module")
def browser(playwright: Any) -> Iterator[Browser]:
    """Chromium with WebGL in software."""
    with launch(playwright, *SOFTWARE_WEBGL) as started:
        yield started


@pytest.fixture
def browser_without_webgl(playwright: Any) -> Iterator[Browser]:
    with launch(playwright, "--disable-3d-apis") as started:
        yield started
