"""fieldguide: labelled photos in; a trained, evaluated and explained classifier out."""

__version__ = "0.1.0"
