"""Scans and label maps kept unpacked, slice by slice."""
