"""Which jobs a folder or a jobs file means, and what their files are called."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvol.core.errors import RecordError
from medvol.core.inference.jobs import case_name, find_jobs, read_jobs, slug


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
            {"scan": "a/ct.nii.gz", "query": "the spleen"},
        ],
    )
    jobs = read_jobs(path, tmp_path / "out")
    assert [(job.folder.name, job.name) for job in jobs] == [
        ("out", "ct_the-spleen"),
        ("out", "ct_the-spleen-2"),
        ("seven", "patient-7_the-liver"),
        ("seven", "patient-7_the-aorta"),
        ("out", "mass"),
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


@given(st.text(max_size=200))
def test_slug_is_always_part_of_a_file_name(query):
    written = slug(query)
    assert 1 <= len(written) <= 48
    assert not set(written) & set('/\\\0. :*?"<>|\n\t')


@given(
    st.lists(st.tuples(st.sampled_from(["a/x.nii", "b/x.nii", "X.nii"]), st.sampled_from(["q", "Q!", "q-2", "q 2"])))
)
def test_names_never_collide(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("jobs")
    entries = [{"scan": scan, "query": query} for scan, query in pairs] or [{"scan": "a", "query": "b"}]
    jobs = read_jobs(write_jobs(folder, entries), folder)
    assert len({job.name.casefold() for job in jobs}) == len(jobs) == len({tuple(e.values()) for e in entries})
