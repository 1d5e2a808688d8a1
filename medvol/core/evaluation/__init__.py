"""Measuring: metrics, statistics, error budget, reports."""
