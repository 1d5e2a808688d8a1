"""A scan whose axes run elsewhere than medvol's, and a session of `medvol view` about it."""

import pytest
from napari_medvol.interface.client import finish
from napari_medvol.local_server import start_server

import medvol

nib = pytest.importorskip("nibabel")
np = pytest.importorskip("numpy")


@pytest.fixture(scope="session")
def scan(tmp_path_factory):
    """A CT-like NIfTI of 40 x 30 x 12 voxels of 1.5 x 2 x 4 mm, from left, front and head; a bright block in it."""
    voxels = np.full((40, 30, 12), -100.0, np.float32)
    voxels[10:30, 12:24, 4:10] = 80.0
    voxels[0, 0, 0] = -1000.0
    affine = np.diag([1.5, 2.0, -4.0, 1.0])
    affine[:3, 3] = (-20.0, -30.0, 400.0)
    path = tmp_path_factory.mktemp("scans") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


@pytest.fixture(scope="session")
def drawn(scan):
    """A synthetic scan, of the kind that the policy of medvol knows, beside the other."""
    path = scan.with_name("drawn.nii.gz")
    return medvol.write_volume(path, medvol.DATASETS.get("PhantomDataset")(split="test", num_volumes=1)[0].volume)


@pytest.fixture(scope="session")
def server(scan, drawn, tmp_path_factory):
    """`medvol view` on both scans, with the policy that comes with medvol."""
    readings = tmp_path_factory.mktemp("kept") / "readings"
    running = finish(start_server(str(scan.parent), str(readings), "bundled:best", "", "A. Reader"))
    running.readings = readings
    yield running
    running.stop()


@pytest.fixture
def region():
    """The propagator that medvol chooses where none is named."""
    return medvol.PROPAGATORS.get("RegionPropagator")()
