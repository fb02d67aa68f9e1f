"""From archives of photos to the prepared store."""
