"""Findings about scans, label maps, data sets and splits, and corrected copies."""
