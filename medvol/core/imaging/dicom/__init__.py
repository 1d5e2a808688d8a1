"""DICOM: a folder, an archive or a file of instances in, a segmentation object out."""
