"""One exception class for each kind of mistake that a user can fix."""


class FieldguideError(Exception):
    """Base class. The message names the file or key, the value found and what is allowed."""


class ParamsError(FieldguideError):
    """A YAML file of the project has an unknown, missing, mistyped or contradictory key."""


class ArchiveError(FieldguideError):
    """The archive is missing, damaged or hostile, or does not hold folders of labelled photos."""


class StoreError(FieldguideError):
    """A file that a stage wrote is missing or damaged."""


class BundleError(FieldguideError):
    """The classifier bundle is missing, damaged or in another format."""


class TrainingError(FieldguideError):
    """Training cannot continue, for example because the loss is not a number."""


class PhotoError(FieldguideError):
    """A photo cannot be decoded."""


class GitError(FieldguideError):
    """Git reports an error, or the folder is in no Git repository."""


class DvcError(FieldguideError):
    """A DVC command fails, or the folder is in no DVC project, or its config is wrong."""


class RevisionError(FieldguideError):
    """The revision does not exist or lacks a result."""


class RegistryError(FieldguideError):
    """A version cannot be released, or a stage cannot be assigned."""


class RemoteError(FieldguideError):
    """A DVC remote cannot be used: not configured, no bucket, a wrong key, no answer."""


class ClusterError(FieldguideError):
    """No Ray cluster can be reached, or the cluster accepts work from anyone."""


class SweepError(FieldguideError):
    """A sweep cannot continue, or no sweep has that name."""


def is_out_of_memory(err: BaseException) -> bool:
    """Tell whether PyTorch ran out of memory, on a GPU (by class) or on a CPU (by message)."""
    return type(err).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(err)


def first_line(err: object) -> str:
    """Return the first line of an error's message; the class of an error that has no message."""
    return str(err).strip().partition("\n")[0] or type(err).__name__


def printable(text: str) -> str:
    """Replace control characters, which could change the terminal: names come from strangers."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
