"""The fit: Lightning module, callbacks, and going on after an interruption."""
