"""Hyperparameter search: a sweep file becomes DVC experiments, and they a report."""
