"""Scores of answers: metrics by case, intervals by patient, the error budget, reports."""
