"""The training loop, its parts, and going on after an interruption."""
