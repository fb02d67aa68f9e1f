"""Releases of the classifier: versions, stages and the model card."""

from fieldguide.errors import FieldguideError


class RegistryError(FieldguideError):
    """A version cannot be released, or a stage not be assigned."""
