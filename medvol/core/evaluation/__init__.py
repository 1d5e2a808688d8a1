"""Metrics, scores of cases, intervals by patient, the error budget, reports."""
