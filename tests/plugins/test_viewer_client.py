"""What the plug-ins of viewers do without a viewer, against a server of `medvol view` and against faults."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import uvicorn
from MedVolViewLib.geometry import draw_regions
from MedVolViewLib.interface.anchors import Anchor
from MedVolViewLib.interface.client import Client, ClientError, ConflictError, GoneError, Progress, finish
from MedVolViewLib.logic import Bench, Stepper

from medvol.core.types import Evidence
from medvol.imaging.reading import read_mask, read_volume
from medvol.inference.records import read_record
from medvol.propagators.extrude import ExtrudePropagator
from medvol.terminal.progress import show_progress
from medvol.viewing.desk import Desk
from medvol.viewing.interface import Interface
from medvol.viewing.jobs import Jobs
from medvol.viewing.server import _listen
from tests.viewing.conftest import BOX, KEY, SlowPropagator, answer_folder, make_desk

MOVED = Anchor(5, ((12.5, 4.0, 20.0, 10.0),))


@contextmanager
def serving(desk: Desk) -> Iterator[str]:
    """The address of a desk that is served, as `medvol view` serves it, in a thread."""
    jobs, listener = Jobs(), _listen(0)
    app = Interface(desk, jobs).build(KEY)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", ws="none", log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    with show_progress(jobs.display), listener:
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/{KEY}/"
        finally:
            server.should_exit = True
            jobs.close()
            thread.join(10)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return answer_folder(tmp_path)


@pytest.fixture
def bench(answers: Path) -> Iterator[Bench]:
    with serving(make_desk(answers, reader="A. Reader")) as address:
        yield connected(address)


def connected(address: str) -> Bench:
    bench = Bench()
    finish(bench.connect(address))
    return bench


def open_first(bench: Bench) -> None:
    """The answer to "the block"."""
    assert bench.session is not None
    found = next(row for row, line in bench.session.answers.items() if line.startswith("the block |"))
    finish(bench.open(found))


def moved(bench: Bench) -> list:
    assert bench.scan is not None
    return draw_regions(MOVED, bench.scan)


def test_an_answer_is_opened_with_its_scan_its_boxes_and_its_mask(bench: Bench, answers: Path) -> None:
    assert bench.session is not None
    assert next(iter(bench.session.answers.values())) == "the block | scan0.nii.gz | not read"
    found = next(iter(bench.session.answers))
    opened = finish(bench.open(found))
    volume = read_volume(answers.parent / "scans" / "scan0.nii.gz")
    np.testing.assert_array_equal(opened.voxels, volume.voxels)
    assert opened.answer.current.anchor == Anchor(3, ((10.0, 6.0, 30.0, 18.0),))
    assert opened.state.describe().startswith(f"{3 * 20 * 12 * 1.5 * 2 * 4 / 1000:.4g} ml, mean ")
    assert finish(bench.open(found)).voxels is None, "they are on the screen already"


def test_the_label_map_lies_where_nibabel_puts_the_mask(bench: Bench, answers: Path) -> None:
    """The scan's axes run to the right, to the front and to the feet; nibabel counts in RAS, as Slicer does."""
    open_first(bench)
    values, matrix = bench.labelmap()
    written = nib.load(answers / read_record(answers / "case0a.json").mask_file)
    expected = nib.affines.apply_affine(written.affine, np.argwhere(np.asarray(written.dataobj)))
    found = nib.affines.apply_affine(matrix, np.argwhere(values)[:, ::-1])
    np.testing.assert_allclose(sorted(found.tolist()), sorted(expected.tolist()), atol=1e-4)
    np.testing.assert_allclose(bench.key_point(), (bench.scan.affine_ras @ [19.5, 14.5, 3, 1])[:3])


def test_the_mask_of_a_moved_box_is_the_librarys(bench: Bench, answers: Path) -> None:
    open_first(bench)
    finish(bench.propagate(moved(bench)))
    volume = read_volume(answers.parent / "scans" / "scan0.nii.gz")
    propagator = ExtrudePropagator(half_depth_slices=1)
    expected = propagator.propagate(volume, Evidence(5, np.array(MOVED.boxes_px)))
    np.testing.assert_array_equal(bench.labelmap()[0], expected)
    bench.reset()
    assert bench.read(bench.regions()) == Anchor(3, ((10.0, 6.0, 30.0, 18.0),))


def test_a_kept_correction_names_its_parent_and_the_next_one_names_it(bench: Bench, answers: Path) -> None:
    open_first(bench)
    parent = bench.answer.sha256
    file = finish(bench.save("corrected", moved(bench), "too low"))
    record = read_record(answers / "readings" / file)
    assert record.reading is not None
    assert (record.reading.parent_sha256, record.reading.remark) == (parent, "too low")
    volume = read_volume(answers.parent / "scans" / "scan0.nii.gz")
    np.testing.assert_array_equal(read_mask(answers / "readings" / record.mask_file, volume), bench.labelmap()[0])
    assert bench.answer.verdict == "corrected"
    again = read_record(answers / "readings" / finish(bench.save("accepted", bench.regions(), "")))
    assert again.reading is not None
    assert again.reading.parent == file


def test_what_a_reader_cannot_save_is_told(bench: Bench) -> None:
    open_first(bench)
    with pytest.raises(ClientError, match="nothing was corrected"):
        finish(bench.save("corrected", bench.regions(), ""))
    with pytest.raises(ClientError, match="as it is"):
        finish(bench.save("accepted", moved(bench), ""))
    with pytest.raises(ClientError, match="nobody answers: start"):
        finish(bench.ask(next(iter(bench.session.scans)), "the liver", policy=True))
    with pytest.raises(ClientError, match="the question is empty"):
        finish(bench.ask(next(iter(bench.session.scans)), "  ", policy=True))


def test_two_readers_cannot_lose_each_others_work(answers: Path) -> None:
    with serving(make_desk(answers, reader="One")) as address:
        one, two = connected(address), connected(address)
        open_first(one)
        open_first(two)
        finish(one.save("corrected", moved(one), "one"))
        with pytest.raises(ConflictError, match="One has saved a reading"):
            finish(two.save("accepted", two.regions(), "two"))
        told: list[str] = []
        stepper = Stepper(lambda progress: None, told.append)
        stepper.start(two.save("rejected", two.regions(), "two"), lambda file: None)
        while stepper.advance():
            pass
        assert told[0].endswith("(open the answer again)")
        open_first(two)
        assert two.state.anchor == MOVED
        finish(two.save("accepted", two.regions(), "two"))
    assert len(list((answers / "readings").glob("*.json"))) == 2


def test_an_answer_of_several_anchors_keeps_them_all(answers: Path) -> None:
    """One anchor on slice 3, x 10 to 30 and y 6 to 18, and one on slice 8, x 2 to 12 and y 2 to 12, each 3 slices."""
    further = Anchor(8, ((2.0, 2.0, 12.0, 12.0),))
    both = Anchor(3, ((10.0, 6.0, 30.0, 18.0),), (further,))
    record = json.loads((answers / "case0a.json").read_text())
    record["evidence"]["further"] = [further.to_json()]
    (answers / "case0a.json").write_text(json.dumps(record))
    with serving(make_desk(answers)) as address:
        bench = connected(address)
        open_first(bench)
        assert bench.state.anchor == both
        assert bench.labelmap()[0].sum() == 3 * (20 * 12 + 10 * 10)
        regions = bench.regions()
        assert bench.read(regions[::-1]) == both, "whichever box Slicer lists first"
        accepted = read_record(answers / "readings" / finish(bench.save("accepted", regions, "")))
        assert [anchor.key_slice for anchor in accepted.evidence.anchors] == [3, 8]
        here = (bench.scan.affine_ras @ [0, 0, 6, 1])[:3]
        moved = bench.put_on_slice(bench.regions(), here)
        file = finish(bench.save("corrected", moved, "the upper one is lower"))
    kept = read_record(answers / "readings" / file).evidence
    assert [(anchor.key_slice, anchor.boxes.tolist()) for anchor in kept.anchors] == [
        (3, [[10.0, 6.0, 30.0, 18.0]]),
        (6, [[2.0, 2.0, 12.0, 12.0]]),
    ]


def test_a_reading_ends_the_draft_that_was_shown_and_no_other(answers: Path) -> None:
    desk = make_desk(answers)
    with serving(desk) as address:
        bench = connected(address)
        open_first(bench)
        entry = desk.entries[bench.answer.answer_id]
        draft = {**MOVED.to_json(), "remark": "", "parent_sha256": bench.answer.sha256}
        desk.readings.write_draft(entry, draft, 0)
        with pytest.raises(ConflictError, match="has changed this answer meanwhile"):
            finish(bench.save("accepted", bench.regions(), ""))
        assert desk.readings.has_draft(entry)
        open_first(bench)
        finish(bench.save("corrected", bench.regions(), ""))
        assert bench.answer.current.anchor == MOVED
        assert not desk.readings.has_draft(entry)


def test_a_draft_of_the_page_is_gone_on_with(answers: Path) -> None:
    desk = make_desk(answers)
    with serving(desk) as address:
        bench = connected(address)
        open_first(bench)
        draft = {**MOVED.to_json(), "remark": "half done", "parent_sha256": bench.answer.sha256}
        desk.readings.write_draft(desk.entries[bench.answer.answer_id], draft, 0)
        open_first(bench)
        assert (bench.state.anchor, bench.answer.remark) == (MOVED, "half done")
        assert bench.state.mask.sum() == bench.state.measures["voxels"] > 0


def test_a_policy_answers_and_a_reader_begins(answers: Path) -> None:
    from medvol.policies.scripted import ScriptedPolicy

    desk = make_desk(answers.parent / "scans" / "scan0.nii.gz", policy=ScriptedPolicy([BOX]), out=answers / "kept")
    with serving(desk) as address:
        bench = connected(address)
        (scan_id,) = bench.session.scans
        assert finish(bench.open_scan(scan_id)).shape == (12, 30, 40)
        opened = finish(bench.ask(scan_id, "the block", policy=True))
        assert opened.voxels is None
        assert opened.state.anchor == Anchor(3, ((10.0, 6.0, 30.0, 18.0),))
        assert finish(bench.ask(scan_id, "what I draw", policy=False)).state.anchor == Anchor()
        assert bench.labelmap()[0].sum() == 0
        finish(bench.propagate([bench.new_region((0.0, 0.0, 0.0))]))
        assert bench.state.mask.any()
        assert len(bench.session.answers) == 2


def test_slow_work_tells_how_far_it_is_and_can_be_cancelled(answers: Path) -> None:
    propagator = SlowPropagator(pause_s=0.03)
    with serving(make_desk(answers, propagator=propagator)) as address:
        bench = connected(address)
        open_first(bench)
        seen: list[Progress | None] = []
        told: list[str] = []
        stepper = Stepper(seen.append, told.append)
        stepper.start(bench.propagate(moved(bench)), lambda state: told.append("ended"))
        while not any(progress is not None and (progress.share or 0) > 0.2 for progress in seen):
            assert stepper.advance()
        stepper.start(bench.propagate(moved(bench)), lambda state: None)
        assert told == ["medvol is at work; wait for it, or cancel it"]
        stepper.cancel()
        assert not stepper.advance()
        assert seen[-1] is None
        assert bench.state.anchor != MOVED
        propagator.pause_s = 0.0
        finish(bench.propagate(moved(bench)))
        assert bench.state.anchor == MOVED
        assert propagator.calls == 2


def test_a_wrong_key_and_a_server_that_is_gone_are_told(answers: Path) -> None:
    with serving(make_desk(answers)) as address:
        with pytest.raises(ClientError, match="the key in the address is not that of this session"):
            finish(Bench().connect(address.replace(KEY, "another")))
        bench = connected(address)
        open_first(bench)
    with pytest.raises(GoneError, match=r"nobody answers at 127.0.0.1:\d+ .*start `medvol view` again") as gone:
        finish(bench.propagate(moved(bench)))
    assert KEY not in str(gone.value)
    assert bench.answer is not None, "what is on the screen stays"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("", "is no address of `medvol view`"),
        ("http://127.0.0.1/key/", "is no address of `medvol view`"),
        ("https://127.0.0.1:80/key/", "is no address of `medvol view`"),
        ("http://127.0.0.1:80/key/api/session", "is no address of `medvol view`"),
        ("http://127.0.0.1:99999/key/", "is no address of `medvol view`"),
        ("http://127.0.0.1:80/k\u00e9y/", "is no address of `medvol view`"),
        ("http://[::1:80/key/", "is no address of `medvol view`"),
        ("http://example.org:80/key/", "'example.org' is another machine"),
    ],
)
def test_an_address_is_judged_before_anything_is_sent(address: str, sentence: str) -> None:
    with pytest.raises(ClientError, match=sentence):
        Client(address)


def done(result: object) -> object:
    return {"job": "a", "title": "opening", "state": "done", "result": result}


SCAN = {
    "scan": "a",
    "name": "a",
    "unit": None,
    "slope": 1,
    "intercept": 0,
    "windows": [],
    "shape_zyx": [2, 2, 2],
    "spacing_zyx_mm": [1, 1, 1],
    "affine_ras": np.eye(4).tolist(),
}
NO_BITS = {"origin_zyx": [0, 0, 0], "shape_zyx": [0, 0, 0], "bits": ""}
EMPTY = {"key_slice": None, "boxes_px": [], "mask": NO_BITS, "measures": {}, "sha256": ""}
ANSWER = {
    "id": "a",
    "query": "q",
    "scan": SCAN,
    "window": "",
    "draft": None,
    "warnings": [],
    "failure": "",
    "same_propagator": True,
    "completion": "",
    "verdict": None,
    "original": EMPTY,
    "current": EMPTY,
}


def with_mask(**fields: object) -> dict:
    return {**ANSWER, "current": {**EMPTY, "mask": {**NO_BITS, **fields}}}


BOMB = "H4sIAAAAAAACA+3BMQEAAADCoPVPbQwfoAAAAAAAAAAAAAAAAAAAAIC3AYbSVKsAQAAA"
"""Gzip of 16,384 zeros."""


@pytest.mark.parametrize(
    "reply",
    [
        b"<html>not medvol</html>",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        {"state": "done"},
        {"job": "a", "title": "", "state": "running", "progress": None},
        done([1]),
        done({}),
        done({**ANSWER, "scan": {**SCAN, "shape_zyx": [10**9, 10**9, 10**9]}}),
        done({**ANSWER, "scan": {**SCAN, "shape_zyx": [2, 2, -2]}}),
        done({**ANSWER, "scan": {**SCAN, "affine_ras": [[1]]}}),
        done({**ANSWER, "scan": {**SCAN, "spacing_zyx_mm": [1, 1, "NaN"]}}),
        done({**ANSWER, "original": {**EMPTY, "key_slice": 1}}),
        done({**ANSWER, "original": {**EMPTY, "key_slice": 1, "boxes_px": [[1, 2, 3]]}}),
        done({**ANSWER, "original": {**EMPTY, "further": [{"key_slice": 1, "boxes_px": [[0, 0, 1, 1]]}]}}),
        done({**ANSWER, "original": {**EMPTY, "further": [1]}}),
        done(with_mask(origin_zyx=[0, 0, 1], shape_zyx=[2, 2, 2], bits="AAAA")),
        done(with_mask(origin_zyx=[-1, 0, 0], shape_zyx=[1, 1, 1], bits="AAAA")),
        done(with_mask(shape_zyx=[2, 2, 2], bits="AAAA")),
        done(with_mask(shape_zyx=[2, 2, 2], bits=BOMB)),
        done(with_mask(shape_zyx=[2, 2, 2], bits="no base64")),
        done(with_mask(shape_zyx=[1, 1], bits="")),
    ],
)
def test_what_is_no_answer_is_refused_in_one_sentence(reply: object) -> None:
    content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    with _saying(content) as address, pytest.raises(ClientError, match="sent what cannot be read") as refused:
        finish(Client(address).open("a"))
    assert "\n" not in str(refused.value)


def test_a_good_answer_of_the_same_kind_is_read() -> None:
    with _saying(json.dumps(done(ANSWER)).encode()) as address:
        assert finish(Client(address).open("a")).query == "q"


@contextmanager
def _saying(content: bytes) -> Iterator[str]:
    """A server that says the same to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_DELETE = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/key/"
    finally:
        server.shutdown()
        server.server_close()
