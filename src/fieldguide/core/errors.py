"""One named exception for each kind of mistake a user can mend."""


class FieldguideError(Exception):
    """Base of all: the message names the file or key, what was found and what is allowed."""


class ParamsError(FieldguideError):
    """params.yaml holds an unknown, missing, mistyped or contradictory key."""


class ArchiveError(FieldguideError):
    """The archive is missing, damaged, hostile or not laid out as labelled photos."""


class StoreError(FieldguideError):
    """The prepared store is missing or was not written by `prepare`."""


class BundleError(FieldguideError):
    """The classifier bundle is missing, damaged or of another format."""


class TrainingError(FieldguideError):
    """Training cannot go on, for example because the loss is not a number."""


class PhotoError(FieldguideError):
    """A photo cannot be read as a picture."""


class GitError(FieldguideError):
    """Git refuses, or there is no repository."""


class DvcError(FieldguideError):
    """A DVC command fails."""


class RevisionError(FieldguideError):
    """There is no such revision, or it lacks a result."""


class RegistryError(FieldguideError):
    """A version cannot be released, or a stage not be assigned."""


class ClusterError(FieldguideError):
    """There is no Ray cluster to be had, or it lets everybody in."""


class SweepError(FieldguideError):
    """A sweep cannot go on, or there is none of that name."""


def is_out_of_memory(err: BaseException) -> bool:
    """Whether PyTorch found no memory: on a GPU a kind of error, on a CPU only the text tells."""
    return type(err).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(err)


def printable(text: str) -> str:
    """Replace what would steer a terminal: names come from archives of strangers."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
