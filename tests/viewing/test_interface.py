"""The interface of `medvol view`: what a client may ask, what it gets, and what is refused."""

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvol.core.errors import RecordError
from medvol.core.types import Evidence
from medvol.imaging.reading import read_mask, read_volume
from medvol.inference.records import read_record
from medvol.inference.repropagation import repropagate
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.terminal.progress import show_progress
from medvol.viewing.corrections import collect
from medvol.viewing.desk import Desk
from medvol.viewing.entries import scan_file
from medvol.viewing.gate import Gate
from medvol.viewing.opening import add_kept, open_target
from medvol.viewing.packing import unpack_mask
from medvol.viewing.reading_folder import ReadingFolder
from medvol.viewing.scans import Scan
from tests.viewing.conftest import BOX, HOSTILE, Api, SlowPropagator, make_desk, write_scan


def moved_anchor() -> dict[str, object]:
    return {"key_slice": 5, "boxes_px": [[12.5, 4.0, 20.0, 10.0]]}


def own_anchor(opened: dict) -> dict[str, object]:
    return {name: opened["original"][name] for name in ("key_slice", "boxes_px")}


def test_a_work_list_tells_where_each_answer_stands(api: Api) -> None:
    rows = api.get("api/answers").json()["answers"]
    assert [row["query"] for row in rows] == ["the block", "the tail", HOSTILE]
    assert {row["verdict"] for row in rows} == {None}
    session = api.get("api/session").json()
    assert (session["propagator"], session["policy"], session["reader"]) == ("ExtrudePropagator", None, "A. Reader")


def test_voxels_are_those_of_the_scan(api: Api, answers: Path) -> None:
    opened = api.first("the block")
    scan, volume = opened["scan"], read_volume(answers.parent / "scans" / "scan0.nii.gz")
    assert scan["shape_zyx"] == [12, 30, 40]
    assert (scan["slope"], scan["intercept"]) == (1.0, 0.0)
    response = api.get(f"api/scans/{scan['scan']}/voxels", params={"first": 2, "count": 7})
    slab = np.frombuffer(response.content, "<i2").reshape(7, 30, 40)
    np.testing.assert_array_equal(slab, volume.voxels[2:9])
    assert api.get(f"api/scans/{scan['scan']}/voxels", params={"first": 12}).status_code == 422


def test_the_mask_of_a_moved_box_is_the_librarys(api: Api, answers: Path) -> None:
    opened = api.first("the block")
    reply = api.post(f"api/answers/{opened['id']}/mask", {"anchor": moved_anchor()}).json()
    volume = read_volume(answers.parent / "scans" / "scan0.nii.gz")
    evidence = Evidence(5, np.array([[12.5, 4.0, 20.0, 10.0]]))
    expected = ExtrudePropagator(half_depth_slices=1).propagate(volume, evidence)
    assert reply["state"] == "done"
    np.testing.assert_array_equal(unpack_mask(reply["result"]["mask"], volume.shape), expected)
    ml = expected.sum() * 1.5 * 2.0 * 4.0 / 1000
    assert reply["result"]["measures"]["volume_ml"] == pytest.approx(ml, abs=1e-3)


def test_a_correction_is_a_new_record_that_names_its_parent(api: Api, answers: Path) -> None:
    before = {path.name: path.read_bytes() for path in answers.iterdir() if path.is_file()}
    opened = api.first("the block")
    body = {"verdict": "corrected", "anchor": moved_anchor(), "remark": "too low", **parent(opened)}
    reply = api.post(f"api/answers/{opened['id']}/readings", body)
    assert reply.status_code == 200, reply.text
    assert {path.name: path.read_bytes() for path in answers.iterdir() if path.is_file()} == before
    written = answers / "readings" / reply.json()["result"]["file"]
    record = read_record(written)
    assert record.reading is not None
    assert (record.reading.verdict, record.reading.remark, record.reading.reader) == (
        "corrected",
        "too low",
        "A. Reader",
    )
    assert record.reading.parent == "case0a.json"
    assert record.reading.parent_sha256 == opened["current"]["sha256"]
    assert record.edited
    volume = read_volume(answers.parent / "scans" / "scan0.nii.gz")
    again = repropagate(volume, record, ExtrudePropagator(half_depth_slices=1))
    np.testing.assert_array_equal(read_mask(written.parent / record.mask_file, volume), again.mask)
    assert written.with_suffix(".png").is_file()
    assert api.first("the block")["current"]["boxes_px"] == [[12.5, 4.0, 20.0, 10.0]]
    assert api.first("the block")["original"]["boxes_px"] == [[10.0, 6.0, 30.0, 18.0]]


def parent(opened: dict) -> dict[str, str]:
    return {"parent_sha256": opened["current"]["sha256"]}


def own(opened: dict) -> dict[str, object]:
    return {key: opened["current"][key] for key in ("key_slice", "boxes_px")}


def test_accepting_and_rejecting_keep_anchor_and_mask(api: Api, answers: Path) -> None:
    opened = api.first("the block")
    link = f"api/answers/{opened['id']}/readings"
    for verdict in ("accepted", "rejected"):
        opened = api.first("the block")
        body = {"verdict": verdict, "anchor": own(opened), "remark": "", **parent(opened)}
        assert api.post(link, body).status_code == 200
        body = {**body, "anchor": moved_anchor(), **parent(api.first("the block"))}
        refused = api.post(link, body)
        assert refused.status_code == 422
        assert "as it is" in refused.json()["error"]["detail"]
    last = api.first("the block")
    assert last["verdict"] == "rejected"
    assert last["current"]["mask"] == last["original"]["mask"]
    chain = [read_record(path).reading for path in (answers / "readings").glob("*.json")]
    assert sorted(reading.verdict for reading in chain if reading) == ["accepted", "rejected"]


def test_two_readers_cannot_lose_each_others_work(answers: Path) -> None:
    one, two = (Api(make_desk(answers, reader=name)) for name in ("One", "Two"))
    first, second = one.first("the block"), two.first("the block")
    link = f"api/answers/{first['id']}/readings"
    body = {"verdict": "corrected", "anchor": moved_anchor(), "remark": "one", **parent(first)}
    assert one.post(link, body).status_code == 200
    late = two.post(link, {**body, "remark": "two", **parent(second)})
    assert late.status_code == 409
    assert late.json()["error"]["detail"].startswith("One has saved a reading")
    assert len(list((answers / "readings").glob("*.json"))) == 1
    body = {"verdict": "accepted", "anchor": moved_anchor(), "remark": "two", **parent(two.first("the block"))}
    assert two.post(link, body).status_code == 200
    assert [reading["remark"] for reading in (one.first("the block"), two.first("the block"))] == ["two", "two"]
    one.close()
    two.close()


def test_drafts_carry_revisions(api: Api) -> None:
    opened = api.first("the block")
    link = f"api/answers/{opened['id']}/draft"
    body = {"anchor": moved_anchor(), "remark": "", "revision": 0, **parent(opened)}
    assert api.client.put(link, json=body).json()["revision"] == 1
    assert api.client.put(link, json=body).status_code == 409
    assert api.client.put(link, json={**body, "revision": 1}).json()["revision"] == 2
    again = api.first("the block")
    assert again["draft"]["boxes_px"] == moved_anchor()["boxes_px"]
    assert again["unfinished"]
    assert api.client.delete(link, params={"revision": 1}).status_code == 409
    assert api.client.delete(link, params={"revision": 2}).status_code == 200
    assert not api.first("the block")["unfinished"]


def test_a_name_that_is_no_utf8_hides_nothing(tmp_path: Path) -> None:
    """A disk in Latin-1 gives the scan half a letter in its name, and the command line one to the reader's."""
    scan = write_scan(tmp_path / "ct.nii.gz").rename(tmp_path / "caf\udce9.nii.gz")
    write_scan(tmp_path / "other.nii.gz", 1)
    api = Api(make_desk(tmp_path, policy=ScriptedPolicy([BOX]), out=tmp_path / "kept", reader="Ren\udce9"))
    rows = {row["name"]: row["scan"] for row in api.get("api/session").json()["scans"]}
    assert sorted(rows) == ["caf?.nii.gz", "other.nii.gz"]
    asked = {"scan": rows["caf?.nii.gz"], "query": "the block", "ask": True}
    assert api.post("api/answers", asked).json()["result"]["scan_name"] == "caf?.nii.gz"
    opened = api.first("the block")
    body = {"verdict": "accepted", "anchor": own_anchor(opened), "remark": "", **parent(opened)}
    file = api.post(f"api/answers/{opened['id']}/readings", body).json()["result"]["file"]
    kept = next(path for path in (tmp_path / "kept").glob("*.json") if path.name.endswith(file[-20:]))
    assert Path(str(read_record(kept).scan_path)) == scan
    assert api.first("the block")["reader"] == "Ren?"
    api.close()


def test_a_draft_never_passes_for_one_that_was_dropped(api: Api) -> None:
    """One tab has the first draft; another one takes it back and begins a second one, which is not the same."""
    opened = api.first("the block")
    link = f"api/answers/{opened['id']}/draft"
    body = {"anchor": moved_anchor(), "remark": "first", "revision": 0, **parent(opened)}
    first = api.client.put(link, json=body).json()["revision"]
    assert api.client.delete(link, params={"revision": first}).status_code == 200
    assert api.client.put(link, json={**body, "remark": "second"}).status_code == 200
    assert api.client.put(link, json={**body, "remark": "late", "revision": first}).status_code == 409
    assert api.first("the block")["draft"]["remark"] == "second"


def test_a_reading_ends_the_draft_that_its_reader_had(api: Api) -> None:
    opened = api.first("the block")
    link = f"api/answers/{opened['id']}"
    body = {"anchor": moved_anchor(), "remark": "", **parent(opened)}
    assert api.client.put(f"{link}/draft", json={**body, "revision": 0}).status_code == 200
    assert api.post(f"{link}/readings", {**body, "verdict": "corrected", "revision": 1}).status_code == 200
    assert not api.first("the block")["unfinished"]
    assert api.client.put(f"{link}/draft", json={**body, "revision": 0}).status_code == 409


@pytest.mark.parametrize("had", [{}, {"revision": 0}, {"revision": 1}])
def test_a_reading_never_ends_a_draft_that_its_reader_did_not_see(api: Api, answers: Path, had: dict) -> None:
    """Another tab has moved the box twice and was closed: what it kept is the only place of that work."""
    opened = api.first("the block")
    link = f"api/answers/{opened['id']}"
    for revision in (0, 1):
        draft = {"anchor": moved_anchor(), "remark": "an hour of work", "revision": revision, **parent(opened)}
        assert api.client.put(f"{link}/draft", json=draft).status_code == 200
    body = {"verdict": "accepted", "anchor": own_anchor(opened), "remark": "", **parent(opened), **had}
    refused = api.post(f"{link}/readings", body)
    assert (refused.status_code, refused.json()["error"]["kind"]) == (409, "ConflictError")
    assert not list((answers / "readings").glob("*.json"))
    assert api.first("the block")["draft"]["remark"] == "an hour of work"


def test_a_question_whose_boxes_are_a_draft_is_there_again(api: Api, answers: Path) -> None:
    """A reader types a question, draws a box, and goes on tomorrow."""
    scan = next(row["scan"] for row in api.get("api/session").json()["scans"] if row["name"] == "scan1.nii.gz")
    began = api.post("api/answers", {"scan": scan, "query": "the other block"}).json()["result"]
    opened = api.first("the other block")
    draft = {"anchor": moved_anchor(), "remark": "half", "revision": 0, **parent(opened)}
    assert api.client.put(f"api/answers/{began['id']}/draft", json=draft).status_code == 200
    for target in (answers, answers.parent / "scans" / "scan1.nii.gz"):
        found = add_kept(open_target(target, read_volume), answers / "readings", read_volume)
        again = Api(Desk(found.entries, found.scans, ExtrudePropagator(1), api.desk.readings, read_volume))
        row = again.first("the other block")
        assert (row["id"], row["draft"]["boxes_px"]) == (began["id"], moved_anchor()["boxes_px"])
        again.close()
    file = answers / "readings" / "drafts" / f"{began['id']}.json"
    whole = file.read_text()
    file.write_text(whole.replace('"the other block"', '""'))
    found = add_kept(open_target(answers / "case0a.json", read_volume), answers / "readings", read_volume)
    assert [problem.startswith(f"{file}: query is ''") for problem in found.problems] == [True]
    file.write_text(whole)
    body = {"verdict": "corrected", "anchor": moved_anchor(), "remark": "", "revision": 1, **parent(opened)}
    assert api.post(f"api/answers/{began['id']}/readings", body).status_code == 200
    found = open_target(answers, read_volume)
    assert [entry.record.query for entry in found.entries].count("the other block") == 1


def test_boxes_that_are_back_are_no_edit(api: Api, answers: Path) -> None:
    """A correction moves the box, a second one puts it back to where the policy's words say."""
    for anchor, edited in ((moved_anchor(), True), (None, False)):
        opened = api.first("the block")
        anchor = anchor or own_anchor(opened)
        body = {"verdict": "corrected", "anchor": anchor, "remark": "", **parent(opened)}
        saved = api.post(f"api/answers/{opened['id']}/readings", body).json()["result"]
        assert read_record(answers / "readings" / saved["file"]).edited is edited


def test_scans_without_an_answer_stay_in_a_second_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`medvol view .` keeps its readings in the folder of the scans; BIDS has JSON there too, one file damaged."""
    for number in range(2):
        write_scan(tmp_path / f"scan{number}.nii.gz", number)
        (tmp_path / f"scan{number}.json").write_text('{"Modality": "CT"}')
    (tmp_path / "notes.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    api = Api(make_desk(Path()))
    scan = api.get("api/session").json()["scans"][0]
    began = api.post("api/answers", {"scan": scan["scan"], "query": "the block"}).json()["result"]
    body = {"verdict": "corrected", "anchor": moved_anchor(), "remark": "", **parent(api.first("the block"))}
    assert api.post(f"api/answers/{began['id']}/readings", body).status_code == 200
    api.close()
    again = Api(make_desk(Path()))
    assert [row["query"] for row in again.get("api/answers").json()["answers"]] == ["the block"]
    assert sorted(row["name"] for row in again.get("api/session").json()["scans"]) == ["scan0.nii.gz", "scan1.nii.gz"]
    again.close()
    assert open_target(Path("readings"), read_volume).scans == [], "masks lie there"


def test_an_absent_target_may_be_corrected_and_a_present_one_taken_back(api: Api) -> None:
    tail = api.first("the tail")
    body = {"verdict": "corrected", "anchor": moved_anchor(), "remark": "", **parent(tail)}
    assert api.post(f"api/answers/{tail['id']}/readings", body).status_code == 200
    assert api.first("the tail")["current"]["measures"]["voxels"] > 0
    block = api.first("the block")
    body = {**body, "anchor": {"key_slice": None, "boxes_px": []}, **parent(block)}
    assert api.post(f"api/answers/{block['id']}/readings", body).status_code == 200
    assert api.first("the block")["current"]["measures"]["voxels"] == 0


def test_a_question_without_a_policy_is_the_readers(tmp_path: Path) -> None:
    made = Api(make_desk(write_scan(tmp_path / "ct.nii.gz"), out=tmp_path / "out"))
    scan = made.get("api/session").json()["scans"][0]["scan"]
    refused = made.post("api/answers", {"scan": scan, "query": "the block", "ask": True})
    assert refused.status_code == 422
    assert "--policy" in refused.json()["error"]["detail"]
    entry = made.post("api/answers", {"scan": scan, "query": "the block"}).json()["result"]
    opened = made.post(f"api/answers/{entry['id']}/open").json()["result"]
    body = {"verdict": "corrected", "anchor": moved_anchor(), "remark": "", **parent(opened)}
    assert made.post(f"api/answers/{entry['id']}/readings", body).status_code == 200
    made.close()
    again = Api(make_desk(tmp_path / "out", out=tmp_path / "out"))
    assert again.first("the block")["verdict"] == "corrected"
    again.close()


@pytest.mark.parametrize(
    "anchor",
    [
        None,
        [],
        {},
        {"key_slice": 3},
        {"key_slice": "3", "boxes_px": [[1, 1, 2, 2]]},
        {"key_slice": True, "boxes_px": [[1, 1, 2, 2]]},
        {"key_slice": -1, "boxes_px": [[1, 1, 2, 2]]},
        {"key_slice": 12, "boxes_px": [[1, 1, 2, 2]]},
        {"key_slice": 10**30, "boxes_px": [[1, 1, 2, 2]]},
        {"key_slice": 3, "boxes_px": []},
        {"key_slice": 3, "boxes_px": "all"},
        {"key_slice": 3, "boxes_px": [[1, 1, 2]]},
        {"key_slice": 3, "boxes_px": [[1, 1, 1, 2]]},
        {"key_slice": 3, "boxes_px": [[2, 1, 1, 2]]},
        {"key_slice": 3, "boxes_px": [[-1, 1, 2, 2]]},
        {"key_slice": 3, "boxes_px": [[1, 1, 41, 2]]},
        {"key_slice": 3, "boxes_px": [[1, 1, 2, 1e300]]},
        {"key_slice": 3, "boxes_px": [["1", 1, 2, 2]]},
        {"key_slice": 3, "boxes_px": [[None, 1, 2, 2]]},
        {"key_slice": 3, "boxes_px": [[1, 1, 2, 2]] * 1000},
        {"key_slice": None, "boxes_px": [[1, 1, 2, 2]]},
        {"key_slice": 3, "boxes_px": [[1, 1, 2, 2]], "path": "/etc/passwd"},
    ],
)
def test_hostile_anchors_are_refused_in_a_sentence(api: Api, anchor: object) -> None:
    opened = api.first("the block")
    reply = api.post(f"api/answers/{opened['id']}/mask", {"anchor": anchor})
    assert reply.status_code == 422
    detail = reply.json()["error"]["detail"]
    assert detail
    assert "Traceback" not in detail


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "api/answers/../../etc/passwd", b"{}", 404),
        ("GET", "page/..%2f..%2fpyproject.toml", b"", 404),
        ("GET", "page/%2e%2e/__init__.py", b"", 404),
        ("GET", "page/index.html%00.js", b"", 404),
        ("POST", "api/answers/FIRST/mask", b"not json", 422),
        ("POST", "api/answers/FIRST/mask", b"[" * 100_000, 422),
        ("POST", "api/answers/FIRST/mask", b'{"anchor": {"key_slice": NaN, "boxes_px": []}}', 422),
        ("POST", "api/answers/FIRST/mask", b"\xff\xfe", 422),
        ("POST", "api/answers/FIRST/mask", b" " * 1_000_001, 422),
        ("POST", "api/answers/FIRST/readings", b'{"verdict": "perfect"}', 422),
        ("PUT", "api/answers/FIRST/draft", b'{"revision": -1}', 422),
        ("POST", "api/answers/unknown/open", b"{}", 404),
        ("GET", "api/jobs/unknown", b"", 404),
        ("GET", "api/scans/unknown/voxels", b"", 404),
        ("DELETE", "api/session", b"", 405),
    ],
)
def test_hostile_requests_are_refused_in_a_sentence(
    api: Api, method: str, path: str, content: bytes, status: int
) -> None:
    first = api.get("api/answers").json()["answers"][0]["id"]
    headers = {"content-type": "application/json"}
    reply = api.client.request(method, path.replace("FIRST", first), content=content, headers=headers)
    assert reply.status_code == status
    assert reply.json()["error"]["detail"]


def test_only_this_machine_with_the_key_gets_in(answers: Path) -> None:
    made, wrong = Api(make_desk(answers)), Api(make_desk(answers), key="another")
    assert made.get("api/session").status_code == 200
    assert wrong.get("api/session").status_code == 404
    assert "medvol view" in wrong.get("").json()["error"]["detail"]
    assert made.get("api/session", headers={"host": "evil.example:8000"}).status_code == 403
    assert made.get("api/session", headers={"host": "127.0.0.1.evil.example"}).status_code == 403
    assert made.get("api/session", headers={"origin": "http://evil.example"}).status_code == 403
    assert made.get("api/session", headers={"origin": "null"}).status_code == 403
    assert made.get("api/session", headers={"origin": "http://127.0.0.1:8000"}).status_code == 200
    body = made.client.post("api/answers", content=b"{}", headers={"content-type": "text/plain"})
    assert body.status_code == 415
    policy = made.get("api/session").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    made.close()
    wrong.close()


@pytest.mark.parametrize("path", ["*", "", "/", "//"])
def test_a_path_without_a_key_is_refused_like_a_wrong_one(path: str) -> None:
    """``OPTIONS *`` asks about the whole server."""
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {"type": "http.disconnect"}

    async def app(*_: object) -> None:
        raise AssertionError("it was let through")

    scope = {"type": "http", "path": path, "method": "OPTIONS", "headers": [(b"host", b"127.0.0.1:80")]}
    asyncio.run(Gate(app, "key")(scope, receive, send))
    assert sent[0]["status"] == 404
    assert b"key in the address" in sent[1]["body"]


def test_a_scan_that_was_changed_is_refused(api: Api, answers: Path) -> None:
    write_scan(answers.parent / "scans" / "scan0.nii.gz", offset=50)
    listed = api.get("api/answers").json()["answers"][0]
    reply = api.post(f"api/answers/{listed['id']}/open")
    assert reply.status_code == 422
    assert "another scan" in reply.json()["error"]["detail"]


def test_a_damaged_record_is_named_and_the_rest_opens(answers: Path) -> None:
    (answers / "case0a.json").write_text("{")
    content = json.loads((answers / "case0b.json").read_text())
    content["scan"]["modality"] = "XR"
    (answers / "case0b.json").write_text(json.dumps(content))
    made = Api(make_desk(answers))
    assert [row["query"] for row in made.get("api/answers").json()["answers"]] == [HOSTILE]
    problems = made.get("api/session").json()["problems"]
    assert len(problems) == 2
    assert "case0a.json" in problems[0]
    made.close()


def test_what_was_followed_is_not_followed_again_when_it_is_saved(answers: Path) -> None:
    propagator = SlowPropagator(pause_s=0)
    made = Api(make_desk(answers, propagator=propagator))
    opened = made.first("the block")
    assert propagator.calls == 0, "the mask of an answer lies on the disk"
    for _ in range(2):
        assert made.post(f"api/answers/{opened['id']}/mask", {"anchor": moved_anchor()}).status_code == 200
    body = {"verdict": "corrected", "anchor": moved_anchor(), "remark": "", **parent(opened)}
    assert made.post(f"api/answers/{opened['id']}/readings", body).status_code == 200
    assert propagator.calls == 1
    made.close()


def test_a_long_propagation_tells_how_far_it_is_and_can_be_cancelled(answers: Path) -> None:
    propagator = SlowPropagator()
    made = Api(make_desk(answers, propagator=propagator))
    with show_progress(made.jobs.display):
        opened = made.first("the block")
        begun = made.begin(f"api/answers/{opened['id']}/mask", {"anchor": moved_anchor()})
        assert begun.status_code == 202
        told = begun.json()
        assert 0 < told["progress"]["share"] < 1
        assert told["progress"]["text"].startswith("slowly: ")
        assert made.client.delete(f"api/jobs/{told['job']}").json()["state"] == "cancelled"
        again = made.post(f"api/answers/{opened['id']}/open")
        assert again.status_code == 200, "the worker is free again"
    made.close()


def test_a_reading_that_is_being_saved_is_not_cancelled(answers: Path) -> None:
    made = Api(make_desk(answers, propagator=SlowPropagator(pause_s=0.03)))
    with show_progress(made.jobs.display):
        opened = made.first("the block")
        body = {"verdict": "corrected", "anchor": moved_anchor(), "remark": "", **parent(opened)}
        begun = made.begin(f"api/answers/{opened['id']}/readings", body)
        assert begun.status_code == 202
        address = f"api/jobs/{begun.json()['job']}"
        assert made.client.delete(address).json()["state"] == "running"
        assert made.get(f"{address}?wait=20").json()["result"]["verdict"] == "corrected"
        assert made.first("the block")["verdict"] == "corrected"
    made.close()


class LatePolicy(ScriptedPolicy):
    """Waits with its answer, and says nothing of how far it is."""

    may_answer = threading.Event()

    def generate(self, prompts, n, sampling):
        assert self.may_answer.wait(20)
        return super().generate(prompts, n, sampling)


def test_of_a_question_that_is_cancelled_nothing_is_written(tmp_path: Path) -> None:
    made = Api(make_desk(write_scan(tmp_path / "ct.nii.gz"), out=tmp_path / "out", policy=LatePolicy([BOX])))
    with show_progress(made.jobs.display):
        scan = made.get("api/session").json()["scans"][0]["scan"]
        begun = made.begin("api/answers", {"scan": scan, "query": "the block", "ask": True})
        assert begun.status_code == 202, begun.text
        assert made.client.delete(f"api/jobs/{begun.json()['job']}").json()["state"] == "cancelled"
        LatePolicy.may_answer.set()
        made.close()
    assert made.get("api/answers").json()["answers"] == []
    assert not list(tmp_path.rglob("*.json"))


def test_boxes_that_are_back_where_they_were_have_the_mask_that_is_shown(answers: Path) -> None:
    """The session's propagator has other settings than that of the answers."""
    made = Api(make_desk(answers, propagator=ExtrudePropagator(half_depth_slices=4)))
    opened = made.first("the block")
    link, before = f"api/answers/{opened['id']}", own(opened)
    body = {"verdict": "corrected", "anchor": moved_anchor(), "remark": "", **parent(opened)}
    assert made.post(f"{link}/readings", body).status_code == 200
    moved = made.first("the block")
    assert moved["current"]["mask"] != moved["original"]["mask"] == opened["original"]["mask"]
    shown = made.post(f"{link}/mask", {"anchor": before}).json()["result"]
    assert shown["mask"] == opened["original"]["mask"]
    reply = made.post(f"{link}/readings", {**body, "anchor": before, **parent(moved)})
    assert made.first("the block")["current"]["mask"] == shown["mask"]
    record = read_record(answers / "readings" / reply.json()["result"]["file"])
    assert record.propagator["half_depth_slices"] == 1, "what made the mask"
    made.close()


def test_several_anchors_are_followed_saved_and_kept(api: Api, answers: Path) -> None:
    opened = api.first("the block")
    further = [{"key_slice": 9, "boxes_px": [[1.0, 2.0, 8.0, 9.0]]}]
    wanted = {**moved_anchor(), "further": further}
    followed = api.post(f"api/answers/{opened['id']}/mask", {"anchor": wanted}).json()["result"]
    volume = read_volume(answers.parent / "scans" / "scan0.nii.gz")
    propagator = ExtrudePropagator(half_depth_slices=1)
    parts = [Evidence(5, np.array([[12.5, 4.0, 20.0, 10.0]])), Evidence(9, np.array([[1.0, 2.0, 8.0, 9.0]]))]
    expected = propagator.propagate(volume, parts[0]) | propagator.propagate(volume, parts[1])
    np.testing.assert_array_equal(unpack_mask(followed["mask"], volume.shape), expected)
    body = {"anchor": wanted, "remark": "", "revision": 0, **parent(opened)}
    assert api.client.put(f"api/answers/{opened['id']}/draft", json=body).status_code == 200
    assert api.first("the block")["draft"]["further"] == further
    body = {"verdict": "corrected", "anchor": wanted, "remark": "two", "revision": 1, **parent(opened)}
    reply = api.post(f"api/answers/{opened['id']}/readings", body)
    record = read_record(answers / "readings" / reply.json()["result"]["file"])
    assert [anchor.key_slice for anchor in record.evidence.anchors] == [5, 9]
    assert api.first("the block")["current"]["further"] == further
    assert "further" not in api.first("the block")["original"]
    row = next(row for row in api.get("api/answers").json()["answers"] if row["query"] == "the block")
    assert row["anchor"]["further"] == further
    for bad in ([{"key_slice": 5, "boxes_px": [[1, 2, 3, 4]]}], [{"key_slice": 40, "boxes_px": [[1, 2, 3, 4]]}], 7):
        refused = api.post(f"api/answers/{opened['id']}/mask", {"anchor": {**moved_anchor(), "further": bad}})
        assert refused.status_code == 422


def test_a_damaged_draft_concerns_its_own_answer_alone(api: Api, answers: Path) -> None:
    opened = api.first("the block")
    path, draft = f"api/answers/{opened['id']}/draft", {"anchor": moved_anchor(), "remark": "", "revision": 0}
    assert api.client.put(path, json={**draft, **parent(opened)}).status_code == 200
    file = answers / "readings" / "drafts" / f"{opened['id']}.json"
    for content in ("{", file.read_text().replace('"key_slice": ', '"key_slice": -')):
        file.write_text(content)
        rows = api.get("api/answers").json()["answers"]
        assert [row["unfinished"] for row in rows] == [row["query"] == "the block" for row in rows]
        reply = api.post(f"api/answers/{opened['id']}/open")
        assert (reply.status_code, file.name in reply.json()["error"]["detail"]) == (422, True)
        assert api.first("the tail")["draft"] is None


def test_a_draft_outside_the_scan_is_refused(api: Api) -> None:
    opened = api.first("the block")
    draft = {"anchor": {"key_slice": 12, "boxes_px": [[1, 1, 5, 5]]}, "remark": "", "revision": 0, **parent(opened)}
    reply = api.client.put(f"api/answers/{opened['id']}/draft", json=draft)
    assert reply.status_code == 422
    assert "the scan has the slices 0 to 11" in reply.json()["error"]["detail"]


def change_key_slice(answers: Path, key: int) -> None:
    record = answers / "case0a.json"
    record.write_text(record.read_text().replace('"key_slice": 3', f'"key_slice": {key}'))


def test_an_anchor_that_was_changed_in_the_file_is_followed_anew(answers: Path) -> None:
    change_key_slice(answers, 8)
    made = Api(make_desk(answers))
    opened = made.first("the block")
    mask = opened["current"]["mask"]  # the file's own mask lies on the slices 2 to 4
    assert (opened["current"]["key_slice"], mask["origin_zyx"][0], mask["shape_zyx"][0]) == (8, 7, 3)
    body = {"verdict": "accepted", "remark": "", "anchor": own(opened), **parent(opened)}
    file = made.post(f"api/answers/{opened['id']}/readings", body).json()["result"]["file"]
    kept = read_mask(answers / "readings" / file.replace(".json", ".nii.gz"), made.desk.shelf.get(scan_of(made)).volume)
    assert np.flatnonzero(kept.any(axis=(1, 2))).tolist() == [7, 8, 9]
    made.close()


def scan_of(made: Api) -> Scan:
    return next(entry.scan for entry in made.desk.entries.values() if entry.record.query == "the block")


def test_an_anchor_outside_its_scan_is_refused(answers: Path) -> None:
    change_key_slice(answers, 99)
    made = Api(make_desk(answers))
    listed = next(row for row in made.get("api/answers").json()["answers"] if row["query"] == "the block")
    reply = made.post(f"api/answers/{listed['id']}/open")
    assert reply.status_code == 422
    assert "evidence.key_slice is 99; the scan has the slices 0 to 11" in reply.json()["error"]["detail"]
    made.close()


def test_a_folder_that_cannot_take_readings_is_refused_at_the_start(answers: Path) -> None:
    readings = answers / "readings"
    readings.write_text("a file")
    with pytest.raises(RecordError, match="is a file, and readings go to a folder"):
        ReadingFolder(readings).require_sound()
    readings.unlink()
    (readings / "old.json").mkdir(parents=True)
    ReadingFolder(readings).require_sound()
    (readings / "new.json").write_text('{"schema": "medvol-evidence/1"}')
    with pytest.raises(RecordError, match=r"new\.json: the field query is missing.*or move it out of the folder"):
        ReadingFolder(readings).require_sound()


@pytest.mark.parametrize("left", [b"", b'{"schema": "medvol-evidence/1", "que'])
def test_a_reading_that_is_damaged_meanwhile_closes_its_own_answer_alone(api: Api, answers: Path, left: bytes) -> None:
    """What is left of it may name no schema; the list is there all the same, and says which answer it is."""
    opened = api.first("the block")
    body = {"verdict": "accepted", "anchor": own_anchor(opened), "remark": "", **parent(opened)}
    saved = api.post(f"api/answers/{opened['id']}/readings", body).json()["result"]["file"]
    (answers / "readings" / saved).write_bytes(left)
    rows = {row["query"]: row["damage"] for row in api.get("api/answers").json()["answers"]}
    assert saved in rows.pop("the block")
    assert list(rows.values()) == ["", ""]
    for path, sent in (("open", {}), ("mask", {"anchor": moved_anchor()}), ("readings", body)):
        refused = api.post(f"api/answers/{opened['id']}/{path}", sent)
        assert (refused.status_code, saved in refused.json()["error"]["detail"]) == (422, True)
    assert api.first("the tail")["verdict"] is None
    with pytest.raises(RecordError, match=f"{saved}.*or move it out of the folder of the readings"):
        ReadingFolder(answers / "readings").require_sound()
    with pytest.raises(RecordError, match=saved):
        collect(api.desk.entries.values(), api.desk.readings, answers)


def test_a_damaged_reading_closes_no_answer_whose_name_begins_alike(answers: Path) -> None:
    some = open_target(answers, read_volume).entries[0]
    entries = [replace(some, name=name) for name in ("liver", "liver_cyst")]
    folder = ReadingFolder(answers / "readings")
    folder.path.mkdir(exist_ok=True)
    (folder.path / "liver_cyst_accepted_0123456789ab.json").write_bytes(b"")
    assert [bool(head.damage) for head in folder.heads(entries)] == [False, True]
    (folder.path / "liver_cyst_accepted_0123456789ab.json").rename(folder.path / "liver_cyst_accepted_old.json")
    (folder.path / "liver_cyst_accepted_old.json").write_text('{"schema": "medvol-evidence/1", "que')
    assert [bool(head.damage) for head in folder.heads(entries)] == [True, True]


def test_scans_and_series_can_be_asked_about_in_their_order(tmp_path: Path) -> None:
    """Two series of one folder are two scans; one scan that is read in two ways is one."""
    (tmp_path / "ct").mkdir()
    named = [("ct", "2", {}), ("ct", "3", {}), ("ct", "2", {"modality": "CT"}), ("a.nii.gz", None, {})]
    scans = [scan_file(tmp_path / file, read_volume, series, settings) for file, series, settings in named]
    desk = Desk([], scans, ExtrudePropagator(), ReadingFolder(tmp_path / "readings"), read_volume)
    expected = [("ct, series 2", scans[0]), ("ct, series 3", scans[1]), ("a.nii.gz", scans[3])]
    assert desk.describe()["scans"] == [{"scan": scan.scan_id, "name": name} for name, scan in expected]
