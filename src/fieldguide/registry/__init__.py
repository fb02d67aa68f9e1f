"""Releases of the classifier: versions, stages and the model card."""
