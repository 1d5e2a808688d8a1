"""Synthetic DICOM: series whose intensities tell where in the body a voxel lies."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
ORIGIN = np.array([-40.0, -30.0, 100.0])
SPACING = (1.5, 2.0)
"""Distance of rows and of columns, so that exchanging them shows."""
STEP = 3.0


def intensity(points: np.ndarray) -> np.ndarray:
    """A whole number for every LPS position (..., 3) of the phantom, all different."""
    x, y, z = np.moveaxis(np.asarray(points) - ORIGIN, -1, 0)
    return np.rint(x / 2.0 + 12 * y / 1.5 + 100 * z / STEP - 1000)


class Series:
    """Slices to be changed and written.

    Args:
        count: Number of slices.
        modality: Such as ``CT``.
        orientation: Row and column direction, LPS.
        origin: Position of the first pixel of the first slice.
        step: Distance of slices, along the normal of rows and columns.
        study: UID; a new one when None.
        number: Series number.
        frame: UID of the frame of reference; a new one when None.
        shape: Rows and columns.
    """

    intensity = staticmethod(intensity)

    def __init__(
        self,
        count: int = 6,
        modality: str = "CT",
        orientation: Iterable[float] = (1, 0, 0, 0, 1, 0),
        origin: np.ndarray = ORIGIN,
        step: float = STEP,
        study: str | None = None,
        number: int = 3,
        frame: str | None = None,
        shape: tuple[int, int] = (8, 10),
    ) -> None:
        self.shape = shape
        self.study = study or generate_uid()
        self.uid = generate_uid()
        self.frame = frame or generate_uid()
        self.orientation = np.array(list(orientation), float)
        row, column = self.orientation[:3], self.orientation[3:]
        normal = np.cross(row, column)
        self.slices = [self._slice(k, origin + k * step * normal, row, column, modality, number) for k in range(count)]

    def _slice(
        self, k: int, position: np.ndarray, row: np.ndarray, column: np.ndarray, modality: str, number: int
    ) -> Dataset:
        dataset = Dataset()
        dataset.SOPClassUID = CT_STORAGE if modality == "CT" else MR_STORAGE
        dataset.SOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = self.study, self.uid
        dataset.FrameOfReferenceUID = self.frame
        dataset.PatientName, dataset.PatientID = "Doe^Jane", "4711"
        dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
        dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber, dataset.StudyID = "20240101", "120000", "A1", "1"
        dataset.ReferringPhysicianName, dataset.PositionReferenceIndicator = "", ""
        dataset.Modality, dataset.SeriesNumber, dataset.SeriesDescription = modality, number, f"series {number}"
        dataset.Manufacturer = "Maker"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber, dataset.AcquisitionNumber = k + 1, 1
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = list(position), list(self.orientation)
        dataset.PixelSpacing, dataset.SliceThickness = list(SPACING), STEP
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -4096
        (dataset.Rows, dataset.Columns), dataset.SamplesPerPixel = self.shape, 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        i, j = np.meshgrid(np.arange(self.shape[1]), np.arange(self.shape[0]))
        places = position + i[..., None] * SPACING[1] * row + j[..., None] * SPACING[0] * column
        Series.set_intensities(dataset, intensity(places))
        return dataset

    def each(self, **elements: Any) -> "Series":
        """Set elements of every slice."""
        for dataset in self.slices:
            for keyword, value in elements.items():
                setattr(dataset, keyword, value)
        return self

    def write(self, folder: Path, names: Callable[[int], str] = "IM{:03d}".format) -> Path:
        """Write one file a slice."""
        folder.mkdir(parents=True, exist_ok=True)
        for k, dataset in enumerate(self.slices):
            Series.write_instance(dataset, folder / names(k))
        return folder

    @staticmethod
    def set_intensities(dataset: Dataset, values: np.ndarray) -> None:
        """Store intensities as the rescaling and the sign of a slice ask for it."""
        stored = np.rint((values - float(dataset.RescaleIntercept)) / float(dataset.RescaleSlope))
        dataset.PixelData = stored.astype("<i2" if dataset.PixelRepresentation else "<u2").tobytes()
        dataset["PixelData"].VR = "OW"

    @staticmethod
    def intensities(dataset: Dataset) -> np.ndarray:
        """What ``set_intensities`` stored."""
        stored = np.frombuffer(dataset.PixelData, "<i2" if dataset.PixelRepresentation else "<u2")
        values = stored.reshape(dataset.Rows, dataset.Columns) * float(dataset.RescaleSlope)
        return values + float(dataset.RescaleIntercept)

    @staticmethod
    def write_instance(dataset: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
        """Write one file with its preamble."""
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
        meta.TransferSyntaxUID = syntax
        file = FileDataset(str(path), dataset, file_meta=meta, preamble=bytes(128))
        file.save_as(path, enforce_file_format=True)
        return path


@pytest.fixture(scope="session")
def make_series() -> type[Series]:
    """Makes synthetic series."""
    return Series
