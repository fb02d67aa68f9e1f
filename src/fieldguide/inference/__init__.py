"""Using a classifier: predict, explain, export, serve."""
