"""One run of ``medvol check`` over malformed files of every kind: each is named, in little time and memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from damaged_itk import METAS, NRRDS
from damaged_nifti import CONTENTS, HEADERS, STREAMS
from scan_bytes import Scans

from medvol.checking.catalogue import PROBLEMS

SCANS = Scans()
RUN = """
import sys, time
from pathlib import Path
from medvol.cli import main
code = main(["check", sys.argv[1], "--json"])
peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line[:5] == "VmHWM")
print(time.process_time(), int(peak) / 1024, file=sys.stderr)
sys.exit(code)
"""


def malformed() -> dict[str, tuple[bytes, str]]:
    """Bytes of each file, and the name of what is wrong with it."""
    files = {f"header-{i}.nii": (SCANS.nifti(change=c), error) for i, (c, error) in enumerate(HEADERS.values())}
    files |= {f"content-{i}.nii": (make(SCANS), error) for i, (make, error) in enumerate(CONTENTS.values())}
    for cases, ending in ((STREAMS, "nii.gz"), (NRRDS, "nrrd"), (METAS, "mha")):
        files |= {f"{ending[-2:]}-{i}.{ending}": (make(SCANS), error) for i, (make, error) in enumerate(cases.values())}
    return {name: (data, error.code) for name, (data, error) in files.items()} | {
        "archive.zip": (b"PK\x03\x04" + bytes(400), "bad_archive"),
        "nothing.mha": (b"", "empty"),
    }


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of a process is read from /proc")
def test_every_malformed_file_is_named(tmp_path):
    """2 s and 300 MB are bars for one file; here all of them share one process."""
    expected = malformed()
    assert len(expected) >= 60
    for name, (data, _) in expected.items():
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_bytes(data)
    done = subprocess.run([sys.executable, "-c", RUN, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    found: dict[str, dict] = {}
    for finding in json.loads(done.stdout)["findings"]:
        found.setdefault(Path(finding["place"]).name, finding)
    assert {name: finding["name"] for name, finding in found.items()} == {n: code for n, (_, code) in expected.items()}
    for finding in found.values():
        problem = PROBLEMS[finding["name"]]
        assert (finding["code"], finding["meaning"], finding["fix"]) == (problem.code, problem.meaning, problem.fix)
    seconds, megabytes = map(float, done.stderr.split()[-2:])
    assert seconds < 60
    assert megabytes < 300
    print(f"{len(expected)} files, {seconds:.1f} s of processor time, peak {megabytes:.0f} MB")
