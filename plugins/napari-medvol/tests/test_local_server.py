"""What is said when a session cannot be started; napari is not needed."""

import pytest
from napari_medvol.interface.client import ClientError, finish
from napari_medvol.local_server import start_server


def test_nothing_chosen_is_told():
    with pytest.raises(ClientError, match="no scan was chosen"):
        finish(start_server("", "", "", ""))


@pytest.mark.slow
def test_medvols_own_sentence_is_handed_on(tmp_path):
    with pytest.raises(ClientError, match=r"^there is no '.*nothing.nii'; give a scan"):
        finish(start_server(str(tmp_path / "nothing.nii"), str(tmp_path), "", ""))


@pytest.mark.slow
def test_closing_ends_the_process(scan, tmp_path):
    steps = start_server(str(scan), str(tmp_path), "", "")
    next(steps)
    process = steps.gi_yieldfrom.gi_frame.f_locals["process"]
    assert process.poll() is None
    steps.close()
    assert process.poll() is not None
