"""What the test set says: predictions, metrics, calibration."""
