"""Write the registry's tags: register a version, assign a stage, take it away.

What the tags say is read by `results.versions`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fieldguide.core.errors import RegistryError
from fieldguide.results.versions import Registry

CLOCK = 5  # seconds that another machine's clock may be ahead of this one's


def register(registry: Registry, version: str, *, commit: str, message: str | None) -> str:
    """Tag a commit as a version; return the tag.

    Raises:
        RegistryError: GTO refuses, or the clock is behind.
    """
    from gto import api  # noqa: PLC0415 - it takes a second

    _wait(registry)
    with _explained():
        made = api.register(
            registry.scm, registry.artifact, commit, version=version, message=message
        )
        return str(made.ref)


def assign(registry: Registry, stage: str, *, commit: str, message: str | None) -> str:
    """Assign a stage to a version's commit; return the tag.

    Raises:
        RegistryError: GTO refuses, or the clock is behind.
    """
    from gto import api  # noqa: PLC0415

    _wait(registry)
    with _explained():  # force: back to an older version, which GTO counts as still assigned
        made = api.assign(
            registry.scm, registry.artifact, stage, ref=commit, message=message, force=True
        )
        return str(made.ref)


def unassign(registry: Registry, stage: str, *, message: str | None) -> list[str]:
    """Leave a stage without a version; return the tags.

    GTO would go back to the version before: the stage is taken from all versions that had it.

    Raises:
        RegistryError: GTO refuses, or the clock is behind.
    """
    from gto import api  # noqa: PLC0415

    had = {event.commit: event for event in registry.events() if event.stage == stage}
    _wait(registry)
    with _explained():
        return [
            str(
                api.unassign(
                    registry.scm,
                    registry.artifact,
                    commit,
                    stage=stage,
                    message=message,
                    force=True,
                ).ref
            )
            for commit, event in had.items()
            if not event.withdraws
        ]


def allowed_stages(registry: Registry) -> list[str] | None:
    """Return the stages that the file .gto allows; None for any.

    Raises:
        RegistryError: the file holds something else.
    """
    from gto import api  # noqa: PLC0415

    with _explained():
        found = api.get_stages(registry.scm, allowed=True)
    return None if found is None else list(found)


def _wait(registry: Registry) -> None:
    # GTO and DVC order tags by seconds alone: each tag of ours gets a second of its own.
    last = max((event.time for event in registry.events()), default=0)
    behind = last - time.time()
    if behind > CLOCK:
        raise RegistryError(
            f"this machine's clock is {behind:.0f} s behind the registry's last tag, so that a new "
            f"one would count as older; allowed: at most {CLOCK} s; set the clock"
        )
    time.sleep(max(0.0, behind + 1))


@contextmanager
def _explained() -> Iterator[None]:
    from gto.exceptions import GTOException  # noqa: PLC0415
    from scmrepo.exceptions import SCMError  # noqa: PLC0415

    try:
        yield
    except (GTOException, SCMError) as err:
        raise RegistryError(f"the registry's tags: {err}") from err
