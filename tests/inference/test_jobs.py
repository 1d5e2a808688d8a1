"""Which jobs a folder or a jobs file means, and what their files are called."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvol.core.errors import RecordError
from medvol.core.types import Case, Query, Volume
from medvol.inference.jobs import answer_stem, case_name, find_jobs, read_jobs, slug
from medvol.inference.names import cut
from medvol.inference.predictions import as_job


def write_jobs(folder: Path, content) -> Path:
    path = folder / "jobs.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_folder_asks_every_scan_in_order(tmp_path: Path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("b.nii.gz", "a.NRRD", "c.mha", "notes.txt", ".hidden.nii", "d.nii"):
        (scans / name).touch()
    (scans / "inner").mkdir()
    jobs = find_jobs(scans, ["The Spleen!", "the liver"], tmp_path / "out")
    assert [job.name for job in jobs[:3]] == ["a_the-spleen", "a_the-liver", "b_the-spleen"]
    assert [job.scan.name for job in jobs[::2]] == ["a.NRRD", "b.nii.gz", "c.mha", "d.nii"]
    assert {job.folder for job in jobs} == {tmp_path / "out"}


def test_folder_without_scans_and_output_over_the_scans_are_refused(tmp_path: Path):
    with pytest.raises(RecordError, match="no scan"):
        find_jobs(tmp_path, ["the spleen"], tmp_path / "out")
    with pytest.raises(RecordError, match="another output folder"):
        find_jobs(tmp_path, ["the spleen"], tmp_path / "." / "")


def test_jobs_file(tmp_path: Path):
    path = write_jobs(
        tmp_path,
        [
            {"scan": "a/ct.nii.gz", "query": "the spleen"},
            {"scan": "b/ct.nii.gz", "query": "the spleen"},
            {"scan": "a/ct.nii.gz", "queries": ["the liver", "the aorta"], "name": "patient-7", "out": "seven"},
            {"scan": "/far/mr.nii", "query": "the mass", "name": "mass"},
            {"scan": "/far/mr.nii", "query": "the mass", "name": "mass"},
            {"scan": "a/ct.nii.gz", "query": "the spleen"},
        ],
    )
    jobs = read_jobs(path, tmp_path / "out")
    assert [(job.folder.name, job.name, job.named) for job in jobs] == [
        ("out", "ct_the-spleen", False),
        ("out", "ct_the-spleen", False),
        ("seven", "patient-7_the-liver", False),
        ("seven", "patient-7_the-aorta", False),
        ("out", "mass", True),
    ]
    assert [str(job.scan) for job in jobs] == [
        *(str(tmp_path / name) for name in ("a/ct.nii.gz", "b/ct.nii.gz", "a/ct.nii.gz", "a/ct.nii.gz")),
        "/far/mr.nii",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "JSON"),
        ("[]", "no list of jobs"),
        ({"scan": "a.nii", "query": "q"}, "no list of jobs"),
        (["a.nii"], r"\[0\]"),
        ([{"scan": "a.nii", "query": "q"}, {"scan": "a.nii"}], r"\[1\] must hold either"),
        ([{"scan": "a.nii", "query": "q", "queries": ["q"]}], "either query or queries"),
        ([{"scan": "a.nii", "querys": "q"}], "did you mean 'query'"),
        ([{"query": "q"}], r"\[0\]\.scan is None"),
        ([{"scan": "", "query": "q"}], r"\[0\]\.scan"),
        ([{"scan": "a.nii", "query": " "}], r"\[0\]\.query"),
        ([{"scan": "a.nii", "query": 3}], r"\[0\]\.query"),
        ([{"scan": "a.nii", "queries": "q"}], r"\[0\]\.queries"),
        ([{"scan": "a.nii", "queries": []}], r"\[0\]\.queries"),
        ([{"scan": "a.nii", "queries": ["q", None]}], r"\[0\]\.queries"),
        ([{"scan": "a.nii", "query": "q", "name": "../x"}], r"\[0\]\.name"),
        ([{"scan": "a.nii", "query": "q", "name": 7}], r"\[0\]\.name"),
        ([{"scan": "a.nii", "query": "q", "out": None}], r"\[0\]\.out"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_bad_jobs_file_is_named(tmp_path: Path, content, words):
    with pytest.raises(RecordError, match=words) as caught:
        read_jobs(write_jobs(tmp_path, content), tmp_path)
    assert "jobs.json" in str(caught.value)


def test_missing_jobs_file_is_named(tmp_path: Path):
    with pytest.raises(RecordError, match="does not exist"):
        read_jobs(tmp_path / "jobs.json", tmp_path)


@pytest.mark.parametrize(
    ("name", "case"), [("ct.nii.gz", "ct"), ("p1.T1.nii", "p1.T1"), ("A.NII.GZ", "A"), ("mr.nrrd", "mr")]
)
def test_case_name(name, case):
    assert case_name(Path("/x") / name) == case


@pytest.mark.parametrize(
    ("query", "expected"),
    [("Where is the LEFT kidney?", "where-is-the-left-kidney"), ("脾臓", "脾臓"), ("???", "query"), ("a/../b", "a-b")],
)
def test_slug(query, expected):
    assert slug(query) == expected


@given(st.text(alphabet=st.characters(codec=None), max_size=300), st.text(min_size=1, max_size=300))
def test_a_name_fits_on_every_disk(query, scan):
    """At most 255 bytes of UTF-8 with the digest, what an edited record adds, and the longest ending."""
    case = case_name(Path("/x") / (scan.replace("/", "").replace("\0", "") + ".nii.gz"))
    stem = answer_stem(case, query)
    assert len(stem.encode()) + 1 + 12 + len("_edited") + len(".failed.json") <= 255
    assert not stem.startswith(".")
    assert not set(stem) & set('/\\\0:*?"<>|\n\t\x1b\u202e')
    assert 1 <= len(slug(query)) <= 48


@given(st.text(), st.integers(1, 40))
def test_a_cut_text_has_whole_letters(text, limit):
    """The longest beginning that fits, found by trying every one."""
    fitting = [text[:i] for i in range(len(text) + 1) if len(text[:i].encode()) <= limit]
    assert cut(text, limit) == fitting[-1]


@pytest.mark.parametrize(
    "out",
    [
        "..",
        "../x",
        "a/../../x",
        "/elsewhere/x",
        "C:\\x",
        "C:x",
        "\\\\host\\x",
        "..\\x",
        "link",
        "link/x",
        "a\x1b",
        "\ud800",
    ],
)
def test_an_output_outside_is_refused(tmp_path: Path, out):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    path = write_jobs(tmp_path, [{"scan": "a.nii", "query": "q", "out": out}])
    with pytest.raises(RecordError, match=r"\[0\]\.out is .*; it must be a folder below"):
        read_jobs(path, tmp_path / "out")


@pytest.mark.parametrize("out", [".", "a", "a/b", "./a", "a/./b", "..a", "inner"])
def test_an_output_inside_is_taken(tmp_path: Path, out):
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "inner").symlink_to(tmp_path / "out" / "a")
    (job,) = read_jobs(write_jobs(tmp_path, [{"scan": "a.nii", "query": "q", "out": out}]), tmp_path / "out")
    assert job.folder == tmp_path / "out" / out


@pytest.mark.parametrize(
    "name", ["a/b", "a\\b", "..", ".a", "C:x", "a\nb", "a\x1b[2J", "\ud800", "a\u202eb", "x" * 244, "脾" * 82]
)
def test_a_name_that_is_none_is_refused(tmp_path: Path, name):
    path = write_jobs(tmp_path, [{"scan": "a.nii", "query": "q", "name": name}])
    with pytest.raises(RecordError, match=r"\[0\]\.name") as caught:
        read_jobs(path, tmp_path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["x" * 242, "脾" * 80, "T1+ C", "p1.T1", "a_b-c", "résumé"])
def test_a_name_is_kept_as_it_is(tmp_path: Path, name):
    (job,) = read_jobs(write_jobs(tmp_path, [{"scan": "a.nii", "query": "q", "name": name}]), tmp_path)
    assert (job.name, job.named) == (name, True)
    many = read_jobs(write_jobs(tmp_path, [{"scan": "a.nii", "queries": ["q", "r"], "name": name}]), tmp_path)
    assert all(len(job.name.encode()) + 13 <= 242 and not job.named for job in many)


@pytest.mark.parametrize("second", ["mass", "MASS", "Mass"])
def test_two_questions_of_one_name_are_refused(tmp_path: Path, second):
    entries = [{"scan": "a.nii", "query": "q", "name": "mass"}, {"scan": "a.nii", "query": "r", "name": second}]
    with pytest.raises(RecordError, match=r"\[1\]\.name is .*\[0\]\.name"):
        read_jobs(write_jobs(tmp_path, entries), tmp_path / "out")
    entries[1]["out"] = "elsewhere"
    assert len(read_jobs(write_jobs(tmp_path, entries), tmp_path / "out")) == 2


@pytest.mark.parametrize("name", ["Summary", "answers"])
def test_the_names_of_the_batch_itself_are_taken(tmp_path: Path, name: str):
    with pytest.raises(RecordError, match="file of the batch itself"):
        read_jobs(write_jobs(tmp_path, [{"scan": "a.nii", "query": "q", "name": name}]), tmp_path)


@pytest.mark.parametrize("name", ["ct.failed", "ct.Agreement", "ct.seg", "ct.sr", "ct.rtstruct", "ct.capture"])
def test_names_of_further_files_of_another_answer_are_taken(tmp_path: Path, name: str):
    """``ct`` would write ``ct.failed.json``, which is where the record of ``ct.failed`` lies."""
    job = {"scan": "a.nii", "query": "the liver", "name": name}
    with pytest.raises(RecordError, match=r"\[0\]\.name is 'ct\.\w+'; a name does not end in \.failed"):
        read_jobs(write_jobs(tmp_path, [job]), tmp_path)
    case = Case(name, Volume(np.zeros((2, 2, 2), np.float32), np.eye(4)), Query("the liver"))
    assert re.fullmatch(f"{re.escape(name)}_[0-9a-f]{{12}}", as_job(case, tmp_path).name)


def test_a_name_may_hold_such_a_word_elsewhere(tmp_path: Path):
    names = ["failed", "ct.failed.2", "ct-seg", "ct.segment"]
    jobs = [{"scan": "a.nii", "query": "the liver", "name": name} for name in names]
    assert [job.name for job in read_jobs(write_jobs(tmp_path, jobs), tmp_path)] == names
