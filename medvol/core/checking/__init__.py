"""Checking scans, folders and data sets before they are used: findings with codes, fingerprints, mended copies."""
