"""Predictions for the test set, its metrics and its calibration."""
