"""``medvol view`` on the command line: it serves until it is stopped, and says what is wrong."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from medvol.cli import main
from tests.viewing.conftest import answer_folder, write_scan


def test_it_serves_until_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "medvol", "view", str(answer_folder(tmp_path)), "--no_browser", "--reader", "A"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    # The answers were made with a setting that is no default, and new masks are made without it.
    assert (
        process.stdout.readline()
        == "a mask was made with --propagator.half_depth_slices 1, and new ones are made without\n"
    )
    told = process.stdout.readline()
    address = re.fullmatch(r"open (http://127\.0\.0\.1:\d+/[\w-]{24}/)\n", told)
    assert address is not None, (told, process.communicate(timeout=30))
    with urlopen(address[1]) as page, urlopen(f"{address[1]}api/session") as session:
        assert b"medvol view" in page.read()
        assert session.status == 200
    with pytest.raises(HTTPError) as refused:
        urlopen(re.sub(r"/[\w-]{24}/", "/wrong/", address[1]))
    with refused.value as told_wrong:
        assert told_wrong.code == 404
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, (out, err)
    assert "readings are in" in out
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "there is no 'nowhere'"),
        (["."], "holds no answers and no scans"),
        (["ct.nii.gz", "--out", ""], "--out is ''; name a file or a folder"),
        (["ct.nii.gz", "--port", "-1"], "port -1 cannot be had"),
        (
            ["ct.nii.gz", "--data", "e.yaml"],
            "--data is about the cases of a run, and 'ct.nii.gz' is no run folder; leave",
        ),
        (["ct.nii.gz", "--export", "c.csv"], "nothing to train on"),
        (["ct.nii.gz", "--export", "ct.nii.gz", "--overwrite"], "'ct.nii.gz' does not end in .csv; name a file that"),
        (["ct.nii.gz", "--propagator", "Nobody"], "propagator"),
        (["ct.nii.gz", "--device", "cpu"], "--device does nothing here, since no --policy answers in the page; leave"),
        (["ct.nii.gz", "--overwrite"], "--overwrite does nothing here, since only --export writes a table"),
        *(
            (["ct.nii.gz", "--export", "c.csv", *page], f"{page[0]} does nothing here, since --export writes a table")
            for page in (
                ["--reader", "A"],
                ["--port", "8000"],
                ["--device", "cpu"],
                ["--policy", "CentreBoxPolicy"],
                ["--propagator", "ExtrudePropagator"],
            )
        ),
        (["broken.nii.gz"], "broken.nii.gz"),
        ([], "target"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments and arguments[0].endswith(".nii.gz"):
        write_scan(tmp_path / "ct.nii.gz")
        (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    assert main(["view", *arguments, "--no_browser"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_a_port_that_is_taken_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = write_scan(tmp_path / "ct.nii.gz")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["view", str(scan), "--no_browser", "--port", port]) == 2
    assert "choose another --port" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["view", str(tmp_path)]) == 2
    assert 'pip install "medvol-r1[view]"' in capsys.readouterr().err
