"""DICOM series, archives and segmentation objects."""
