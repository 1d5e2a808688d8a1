"""Answering: segmenter, evidence records, jobs."""
