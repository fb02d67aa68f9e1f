"""Find photos whose label or quality is doubtful, for a person to look at."""
