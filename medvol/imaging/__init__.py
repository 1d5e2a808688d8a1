"""Scans: reading, writing, geometry, intensity windows, slices."""
