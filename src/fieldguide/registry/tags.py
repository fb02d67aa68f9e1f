"""The one place that uses GTO, checked with GTO 1.10.1: write the registry's tags.

What the tags say is read by `results.versions`. `pyproject.toml` bounds GTO to the versions that
this module was checked with, and tests/registry/test_tags.py exercises it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gto import api
from gto.constants import fullname_re, name_re, semver
from gto.exceptions import GTOException
from scmrepo.exceptions import SCMError

from fieldguide.core.errors import RegistryError
from fieldguide.results.versions import VersionTags

CLOCK = 5  # seconds that another machine's clock may be ahead of this one's


def check_names(
    registry: VersionTags, *, version: str | None = None, stage: str | None = None
) -> None:
    """Check the names that go into new tags.

    Args:
        registry: its artifact contains the name of the project's folder.
        version: v1.2.0, after https://semver.org.
        stage: that the file .gto in Git's top folder allows; any if there is no such file.

    Raises:
        RegistryError: GTO would refuse one of them.
    """
    if version is not None and not re.fullmatch(f"v{semver}", version):
        raise RegistryError(f"version: found {version!r}; allowed: like v1.2.0 or v1.2.0-rc.1")
    if not fullname_re.search(registry.artifact):
        raise RegistryError(
            f"{registry.artifact}: tags have the project's folder in their names; allowed: "
            "letters, digits, '-', '_', '.' and '/'"
        )
    if stage is None:
        return
    with _explained():
        allowed = api.get_stages(registry.top, allowed=True)
    if allowed is not None and stage not in allowed:
        raise RegistryError(
            f"stage: found {stage!r}; allowed, by the file .gto: {', '.join(allowed)}"
        )
    if not name_re.search(stage):
        raise RegistryError(f"stage: found {stage!r}; allowed: letters, digits, '-', '_' and '/'")


def register(registry: VersionTags, version: str, *, commit: str, message: str | None) -> str:
    """Tag a commit as a version; return the tag.

    Raises:
        RegistryError: GTO refuses, or the clock is behind.
    """
    _wait(registry)
    with _explained():
        made = api.register(
            registry.top, registry.artifact, commit, version=version, message=message
        )
    return str(made.ref)


def assign(registry: VersionTags, stage: str, *, commit: str, message: str | None) -> str:
    """Assign a stage to a version's commit; return the tag.

    Raises:
        RegistryError: GTO refuses, or the clock is behind.
    """
    _wait(registry)
    with _explained():  # force: GTO counts an older version as still assigned
        made = api.assign(
            registry.top, registry.artifact, stage, ref=commit, message=message, force=True
        )
    return str(made.ref)


def unassign(registry: VersionTags, stage: str, *, message: str | None) -> list[str]:
    """Leave a stage without a version; return the tags.

    GTO alone would fall back to the version before. So the stage is withdrawn from every version
    that had it.

    Raises:
        RegistryError: GTO refuses, or the clock is behind.
    """
    last = {event.commit: event for event in registry.events() if event.stage == stage}
    had = [commit for commit, event in last.items() if not event.withdraws]
    _wait(registry)
    with _explained():
        made = [
            api.unassign(
                registry.top, registry.artifact, commit, stage=stage, message=message, force=True
            )
            for commit in had
        ]
    return [str(one.ref) for one in made]


def _wait(registry: VersionTags) -> None:
    # GTO and DVC order tags by seconds alone, so each new tag needs a second of its own.
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
    try:
        yield
    except (GTOException, SCMError) as err:
        raise RegistryError(f"the registry's tags: {err}") from err
