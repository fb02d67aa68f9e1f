"""The report of a run: one revision's results as a page for people and as Markdown for a review."""
