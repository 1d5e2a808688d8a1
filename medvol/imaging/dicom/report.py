"""Structured reports (TID 1500): what a mask measures, as a picture archive files it, with a link to the mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvol.core.atomic_files import write_whole
from medvol.core.types import Volume
from medvol.imaging.dicom.links import UNICODE, building, equipment, import_highdicom, link_images, require_origin
from medvol.imaging.dicom.parsing import quiet_parsing, quiet_values, read_dataset
from medvol.imaging.dicom.reading import DicomOrigin

if TYPE_CHECKING:
    from pydicom import Dataset

_SERIES_NUMBER = 9002


def write_report(
    path: Path,
    segmentation: Path,
    volume: Volume,
    measures: Mapping[str, Any],
    remarks: Sequence[str] = (),
    with_patient: bool = False,
) -> Path:
    """Write what a mask measures as a report; it is marked as preliminary and unverified.

    Volume is in cm3, which is ml, and diameters are in mm, all in UCUM. A CT has its mean attenuation, in HU. An empty
    mask has a volume of 0 and nothing else.

    Args:
        path: The file.
        segmentation: Segmentation object of the mask, as ``write_dicom_seg`` wrote it; question and type of the tissue
            are taken from it.
        volume: The scan, read from DICOM; its files must still be where they were.
        measures: What the mask measures, as a record holds it.
        remarks: Sentences for the reader, such as warnings.
        with_patient: Copy what an archive files it by, see ``DicomOutputs``.

    Returns:
        The path.

    Raises:
        ConfigError: The volume was not read from DICOM.
        MissingLinksError: Its files cannot be referred to.
        MissingExtraError: highdicom is not installed.
    """
    origin = require_origin(volume)
    highdicom = import_highdicom()
    with quiet_parsing(segmentation), segmentation.open("rb") as stream:
        mask = highdicom.seg.Segmentation.from_dataset(read_dataset(segmentation, stream), copy=False)
    images = link_images(origin, with_patient)
    with building(origin):
        report = highdicom.sr.ComprehensiveSR(
            evidence=[*images, mask],
            content=_content(highdicom, origin, mask, measures, remarks),
            series_instance_uid=highdicom.UID(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            **equipment(),
            is_complete=True,
            series_description=mask.SegmentSequence[0].SegmentLabel,
            specific_character_set=UNICODE,
        )
    with quiet_values(), write_whole(path) as partial:
        report.save_as(partial)
    return path


def _content(
    highdicom: Any, origin: DicomOrigin, mask: Dataset, measures: Mapping[str, Any], remarks: Sequence[str]
) -> Any:
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    release, sr = version("medvol-r1"), highdicom.sr
    device = sr.DeviceObserverIdentifyingAttributes(
        generate_uid(entropy_srcs=["medvol-r1", release]), "medvol", "medvol", "medvol-r1", release
    )
    segment = mask.SegmentSequence[0]
    kind, category = segment.SegmentedPropertyTypeCodeSequence[0], segment.SegmentedPropertyCategoryCodeSequence[0]
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(segment.TrackingUID, segment.TrackingID),
        referenced_segment=sr.ReferencedSegment(
            mask.SOPClassUID,
            mask.SOPInstanceUID,
            1,
            source_series=sr.SourceSeriesForSegmentation(origin.slices[0].series),
        ),
        finding_type=kind,
        finding_category=category,
        measurements=list(_measurements(sr, measures)),
        algorithm_id=sr.AlgorithmIdentification("medvol", release),
    )
    for remark in remarks:
        comment = sr.TextContentItem(codes.DCM.Comment, remark, sr.RelationshipTypeValues.CONTAINS)
        group[0].ContentSequence.append(comment)
    procedures = {"CT": codes.LN.CTUnspecifiedBodyRegion, "MR": codes.LN.MRIUnspecifiedBodyRegion}
    return sr.MeasurementReport(
        sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
        procedures.get(origin.modality, codes.SCT.ImagingProcedure),
        [group],
        codes.DCM.ImagingMeasurementReport,
    )


def _measurements(sr: Any, measures: Mapping[str, Any]) -> Iterator[Any]:
    from pydicom.sr.codedict import codes

    yield sr.Measurement(
        codes.SCT.Volume,
        measures["volume_ml"],
        codes.UCUM.CubicCentimeter,
        method=codes.DCM.SumOfSegmentedVoxelMethodForVolume,
    )
    if measures["longest_diameter_mm"] is not None:
        yield sr.Measurement(codes.SCT.LongAxis, measures["longest_diameter_mm"], codes.UCUM.Millimeter)
        yield sr.Measurement(codes.SCT.ShortAxis, measures["perpendicular_diameter_mm"], codes.UCUM.Millimeter)
    if measures["intensity_unit"] == "HU" and measures["mean_intensity"] is not None:
        yield sr.Measurement(
            codes.DCM.AttenuationCoefficient,
            measures["mean_intensity"],
            codes.UCUM.HounsfieldUnit,
            derivation=codes.SCT.Mean,
        )
