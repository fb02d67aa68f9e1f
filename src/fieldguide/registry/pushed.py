"""Whether a revision's classifier really lies on the DVC remote."""

from __future__ import annotations

from fieldguide.core.errors import RegistryError
from fieldguide.remotes.verify import verify
from fieldguide.remotes.wanted import Scope
from fieldguide.results.paths import MODEL
from fieldguide.results.revision import Revision


def check_pushed(revision: Revision) -> None:
    """Look at the remote itself, because DVC's index of it may be out of date.

    Args:
        revision: a commit.

    Raises:
        RegistryError: files are missing there, have another size, or are not to be there.
        RemoteError: there is no remote, or it cannot be asked.
    """
    assert revision.rev is not None
    report = verify(revision.root, Scope(revs=(revision.rev,)), only=(MODEL,))
    if not report.outs:
        why = ", ".join(report.left_out) or "no out of DVC"
        raise RegistryError(
            f"{MODEL} of {revision.label}: not on the DVC remote ({why}); allowed: one that "
            "`dvc push` uploads"
        )
    if not report.complete:
        names = ", ".join(
            f"{use.path} ({one.state})" for one in report.findings for use in one.uses
        )
        raise RegistryError(
            f"{names}: not on the DVC remote as {revision.label} names it; allowed: after "
            "`dvc push` or `fieldguide remote verify --repair`"
        )
