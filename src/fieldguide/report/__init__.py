"""The run's report: what a revision holds, as a page for people and as Markdown for a review."""
