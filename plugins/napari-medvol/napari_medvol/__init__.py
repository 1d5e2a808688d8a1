"""napari shows medvol's evidence on a scan, lets a person move it, and keeps the correction."""
