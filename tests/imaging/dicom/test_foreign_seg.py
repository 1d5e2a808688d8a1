"""Segmentation objects as other programs write them: made by highdicom, then changed element by element."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless, generate_uid

from medvol.core.errors import DatasetError, ScanError
from medvol.datasets.nifti import NiftiDataset
from medvol.imaging.dicom.problems import BadSegmentationError
from medvol.imaging.dicom.segmentation import write_dicom_seg
from medvol.imaging.reading import read_mask, read_volume

highdicom = pytest.importorskip("highdicom")

SHAPE = (7, 9)
"""Rows and columns: a frame of 63 bits does not end at a byte."""


@pytest.fixture
def scan(make_series, tmp_path):
    """A volume, the files it came from, and a label map of three segments with an empty slice."""
    series = make_series(shape=SHAPE)
    volume = read_volume(series.write(tmp_path / "scan"))
    labels = np.random.default_rng(3).integers(0, 4, volume.shape).astype(np.uint8)
    labels[2] = 0
    return volume, [dcmread(path) for path in sorted((tmp_path / "scan").iterdir())], labels


def write(path: Path, files, pixels: np.ndarray, kind: str = "BINARY", count: int = 3, **more) -> Path:
    """An object of ``count`` segments; pixels (Z, Y, X) or (Z, Y, X, segments)."""
    code = highdicom.sr.CodedConcept("85756007", "SCT", "Tissue")
    described = [highdicom.seg.SegmentDescription(n + 1, f"s{n}", code, code, "MANUAL") for n in range(count)]
    highdicom.seg.Segmentation(
        files, pixels, kind, described, generate_uid(), 7, generate_uid(), 1, "m", "m", "1", "1", **more
    ).save_as(path)
    return path


def change(path: Path, *changes) -> Path:
    dataset = dcmread(path)
    for one in changes:
        one(dataset)
    dataset.save_as(path)
    return path


def measures_of(dataset: Dataset) -> list[Dataset]:
    shared = dataset.SharedFunctionalGroupsSequence[0]
    per_frame = [
        group.PixelMeasuresSequence[0]
        for group in dataset.PerFrameFunctionalGroupsSequence
        if "PixelMeasuresSequence" in group
    ]
    return [*(shared.get("PixelMeasuresSequence") or []), *per_frame]


def no_thickness(dataset):
    for measures in measures_of(dataset):
        measures.pop("SliceThickness", None)


def empty_thickness(dataset):
    for measures in measures_of(dataset):
        measures.SliceThickness = None


def no_distance(dataset):
    for measures in measures_of(dataset):
        measures.pop("SpacingBetweenSlices", None)


def wrong_distance(dataset):
    for measures in measures_of(dataset):
        measures.SpacingBetweenSlices = measures.SliceThickness = 17


def measures_per_frame(dataset):
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.PixelMeasuresSequence = shared.PixelMeasuresSequence
        group.PlaneOrientationSequence = shared.PlaneOrientationSequence
    del shared.PixelMeasuresSequence, shared.PlaneOrientationSequence


def no_dimensions(dataset):
    for keyword in ("DimensionIndexSequence", "DimensionOrganizationSequence", "DimensionOrganizationType"):
        dataset.pop(keyword, None)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.pop("FrameContentSequence", None)


def no_references(dataset):
    dataset.pop("ReferencedSeriesSequence", None)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.pop("DerivationImageSequence", None)


def other_frame_of_reference(dataset):
    dataset.FrameOfReferenceUID = generate_uid()


def shuffled(dataset):
    """Frames in another order, pixels likewise; bits are packed without regard to bytes."""
    order = np.random.default_rng(0).permutation(dataset.NumberOfFrames)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    size = dataset.Rows * dataset.Columns
    frames = bits[: size * dataset.NumberOfFrames].reshape(-1, size)[order]
    packed = np.packbits(frames, axis=None, bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    groups = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]


CHANGES = [no_thickness, empty_thickness, no_distance, wrong_distance, measures_per_frame, no_dimensions]
CHANGES += [no_references, other_frame_of_reference, shuffled]


def together(*changes):
    def apply(dataset):
        for one in changes:
            one(dataset)

    apply.__name__ = "+".join(one.__name__ for one in changes)
    return apply


@pytest.mark.parametrize("one", [*CHANGES, together(measures_per_frame, no_thickness, no_distance, shuffled)])
@pytest.mark.parametrize("omit", [True, False], ids=["sparse", "full"])
def test_what_other_programs_leave_out(scan, tmp_path, one, omit):
    volume, files, labels = scan
    stacked = np.stack([labels == n for n in (1, 2, 3)], axis=-1)
    path = change(write(tmp_path / "seg.dcm", files, stacked, omit_empty_frames=omit), one)
    for number in (1, 2, 3):
        assert np.array_equal(read_mask(path, volume, [number]), labels == number)
    assert np.array_equal(read_mask(path, volume, [1, 3]), (labels == 1) | (labels == 3))


@pytest.mark.parametrize("keep", [{0}, {1, 4}, {0, 2, 4}, {5}], ids=str)
def test_few_frames_without_a_distance(scan, tmp_path, keep):
    """Every second slice, or one: nothing but the places of the frames says which slices they are."""
    volume, files, labels = scan
    mask = (labels > 0) | True
    for z in set(range(6)) - keep:
        mask[z] = False
    path = write(tmp_path / "seg.dcm", files, mask[..., None], count=1)
    path = change(path, no_thickness, no_distance, no_dimensions)
    assert dcmread(path).NumberOfFrames == len(keep)
    assert np.array_equal(read_mask(path, volume), mask)


@pytest.mark.parametrize("kind", ["PROBABILITY", "OCCUPANCY"])
@pytest.mark.parametrize("most", [255, 100, 1])
def test_shares_of_at_least_a_half(scan, tmp_path, kind, most):
    volume, files, _ = scan
    shares = np.random.default_rng(1).random(volume.shape)
    shares[0] = 0
    path = write(
        tmp_path / "seg.dcm", files, shares[..., None], "FRACTIONAL", 1, fractional_type=kind, max_fractional_value=most
    )
    stored = np.rint(shares * most)
    assert np.array_equal(read_mask(change(path, no_thickness), volume), stored / most >= 0.5)


def test_compressed_shares(scan, tmp_path):
    volume, files, labels = scan
    path = write(
        tmp_path / "seg.dcm",
        files,
        (labels > 1)[..., None].astype(float),
        "FRACTIONAL",
        1,
        transfer_syntax_uid=RLELossless,
    )
    assert np.array_equal(read_mask(path, volume), labels > 1)


def test_a_label_map_object(scan, tmp_path):
    volume, files, labels = scan
    path = change(write(tmp_path / "seg.dcm", files, labels, "LABELMAP"), no_thickness, no_distance)
    assert dcmread(path).SegmentationType == "LABELMAP"
    assert np.array_equal(read_mask(path, volume), labels > 0)
    assert np.array_equal(read_mask(path, volume, [2]), labels == 2)
    with pytest.raises(ScanError, match=r"segments \[1, 2, 3\], not \[9\]"):
        read_mask(path, volume, [9])


def test_overlapping_segments(scan, tmp_path):
    volume, files, labels = scan
    both = np.stack([labels > 0, labels == 2], axis=-1)
    path = change(write(tmp_path / "seg.dcm", files, both, count=2), no_thickness, shuffled)
    assert np.array_equal(read_mask(path, volume), labels > 0)
    assert np.array_equal(read_mask(path, volume, [2]), labels == 2)


def test_overlapping_segments_in_a_table(scan, tmp_path):
    """Every row finds its own segment: a tumour in its kidney, all of them, and one that is said to be absent."""
    _, files, labels = scan
    kidney, tumour = labels > 0, labels == 2
    write(tmp_path / "seg.dcm", files, np.stack([kidney, tumour, np.zeros_like(tumour)], axis=-1))
    rows = ["1,kidney,", "2,kidney tumour,", ",kidneys,", "3,kidney cyst,yes", "9,spleen,yes", "3,kidney cyst,"]
    (tmp_path / "t.csv").write_text(
        "image,mask,label,target,absent\n" + "".join(f"scan,seg.dcm,{row}\n" for row in rows)
    )
    dataset = NiftiDataset(str(tmp_path), str(tmp_path / "t.csv"))
    for index, mask in enumerate([kidney, tumour, kidney, np.zeros_like(kidney), np.zeros_like(kidney)]):
        assert np.array_equal(dataset[index].target, mask)
    with pytest.raises(DatasetError, match=r"label 3 of 'kidney cyst' is not in .*seg\.dcm, which holds 1, 2"):
        dataset[5]


def test_part_of_the_scan_and_beyond_it(make_series, tmp_path):
    """Frames of slices that the volume does not have are refused when they are not empty."""
    series = make_series(count=8)
    series.write(tmp_path / "eight")
    files = [dcmread(path) for path in sorted((tmp_path / "eight").iterdir())]
    mask = np.zeros((8, 8, 10), bool)
    mask[3:5, 2:4] = True
    path = write(tmp_path / "seg.dcm", files, mask[..., None], count=1, omit_empty_frames=False)
    del series.slices[:2]
    six = read_volume(series.write(tmp_path / "six"))
    assert np.array_equal(read_mask(path, six), mask[2:])
    mask[0, 0, 0] = True
    path = write(tmp_path / "seg.dcm", files, mask[..., None], count=1)
    with pytest.raises(ScanError, match="grid of the scan"):
        read_mask(path, six)


def shift(amount, axis):
    def apply(dataset):
        for group in dataset.PerFrameFunctionalGroupsSequence:
            place = group.PlanePositionSequence[0]
            position = list(map(float, place.ImagePositionPatient))
            position[axis] += amount
            place.ImagePositionPatient = position

    return apply


def turned(dataset):
    dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [
        1,
        0,
        0,
        0,
        0.96,
        0.28,
    ]


def other_pixels(dataset):
    measures_of(dataset)[0].PixelSpacing = [1.5, 2.2]


def no_position(dataset):
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence


def no_number(dataset):
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.SegmentIdentificationSequence


def cut(dataset):
    dataset.PixelData = dataset.PixelData[:4]


def huge(dataset):
    dataset.Rows = dataset.Columns = 60_000


def no_groups(dataset):
    del dataset.PerFrameFunctionalGroupsSequence


def one_frame_without_groups(dataset):
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.NumberOfFrames = 1


def a_frame_less(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[-1]


def second_not_described(dataset):
    del dataset.SegmentSequence[1]


def surface(dataset):
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.5"


@pytest.mark.parametrize(
    ("one", "words"),
    [
        *((shift(0.8, axis), "grid of the scan") for axis in range(3)),
        (turned, "grid of the scan"),
        (other_pixels, "grid of the scan"),
        (no_position, "where it lies"),
        (no_number, "which segment"),
        (cut, "parsed"),
        (huge, "grid of the scan"),
        (no_groups, "does not describe its frames"),
        (one_frame_without_groups, "does not describe its frames"),
        (a_frame_less, "declares 15 frames, not those"),
        (second_not_described, r"show the segments \[2\], which it does not describe"),
        (surface, "no segmentation of voxels"),
    ],
)
def test_refused(scan, tmp_path, one, words):
    volume, files, labels = scan
    stacked = np.stack([labels == n for n in (1, 2, 3)], axis=-1)
    path = change(write(tmp_path / "seg.dcm", files, stacked), one)
    with pytest.raises(ScanError, match=words) as raised:
        read_mask(path, volume)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_frames_that_are_not_described_are_refused_for_every_kind(scan, tmp_path, kind):
    """The first two frames alone would be looked at, and the rest be lost."""
    volume, files, labels = scan
    labels[:2] = 0
    path = change(write(tmp_path / "seg.dcm", files, labels, kind, omit_empty_frames=False), no_groups)
    with pytest.raises(BadSegmentationError, match="does not describe its frames"):
        read_mask(path, volume)


def test_labels_that_are_not_described_are_refused(scan, tmp_path):
    volume, files, labels = scan
    path = change(write(tmp_path / "seg.dcm", files, labels, "LABELMAP"), second_not_described)
    for chosen in (None, [2]):
        with pytest.raises(ScanError, match=r"show the segments \[\d\], which it does not describe"):
            read_mask(path, volume, chosen)


def test_rounded_places(make_series, tmp_path):
    """Places of slices and frames are rounded to a tenth of a millimetre."""
    series = make_series(count=7, step=0.625)
    for dataset in series.slices:
        dataset.ImagePositionPatient = [round(float(value), 1) for value in dataset.ImagePositionPatient]
    volume = read_volume(series.write(tmp_path / "scan"))
    mask = np.random.default_rng(0).random(volume.shape) < 0.3
    path = write_dicom_seg(tmp_path / "mask.dcm", mask, volume, "the liver")
    assert np.array_equal(read_mask(path, volume), mask)


ORIENTATIONS = [(r, 0, 0, 0, c, 0) for r, c in product((1, -1), repeat=2)] + [(0, 1, 0, 0, 0, -1), (0, -1, 0, 1, 0, 0)]


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
@pytest.mark.parametrize("thickness", [None, "", 0, 7.5], ids=str)
def test_thickness_is_what_places_say(make_series, tmp_path, orientation, thickness):
    """Series without it are written with the distance of slices, and are read by us and by highdicom."""
    series = make_series(orientation=orientation)
    for dataset in series.slices:
        del dataset.SliceThickness
        if thickness is not None:
            dataset.SliceThickness = thickness
    volume = read_volume(series.write(tmp_path / "scan"))
    mask = np.random.default_rng(0).random(volume.shape) < 0.3
    path = write_dicom_seg(tmp_path / "mask.dcm", mask, volume, "the liver")
    [measures] = measures_of(dcmread(path))
    assert [measures.SliceThickness, measures.SpacingBetweenSlices] == [3, 3]
    assert list(measures.PixelSpacing) == [1.5, 2]
    assert np.array_equal(read_mask(path, volume), mask)
    assert highdicom.seg.segread(path).get_volume().array.sum() == mask.sum()
