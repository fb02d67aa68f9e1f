"""Labelled photos: archives, splits, the prepared store and batches."""
