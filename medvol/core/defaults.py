"""Components that are taken where none is named."""

FOLDER_POLICY = "VisionLanguagePolicy"
"""Reads a model folder that medvol did not write, as published models are."""

PROPAGATOR = "RegionPropagator"
"""Follows an anchor; it needs no weights."""
