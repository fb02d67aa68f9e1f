"""Run Git's own command, without a shell."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from fieldguide.core.errors import GitError

_LOGIN = re.compile(r"://[^/@\s]+@")  # a user and password in an address
# Git sets these for hooks. They name a repository, and then Git takes the folder it runs in for the
# top folder, so that a project in a subfolder would be mistaken for the one at the top.
_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX")


def git(root: Path, *arguments: str, text: str | None = None) -> str:
    """Run git in `root`, with `text` as its standard input, and return its output.

    Raises:
        GitError: Git fails; the message has Git's own reason.
    """
    command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]  # hooks are the user's
    done = subprocess.run(
        command,
        cwd=root,
        env=environment(),
        input=text,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",  # names of files may be any bytes
        check=False,
    )
    if done.returncode != 0:
        what = next(word for word in arguments if not word.startswith("-"))
        why = _LOGIN.sub("://", done.stderr.strip())
        raise GitError(f"git {what} failed in {root}: {why}")
    return done.stdout


def subfolder_of(root: Path) -> str:
    """Return where the project lies in its Git repository: "birds/", or "" for the top folder.

    Raises:
        GitError: `root` is in no repository that Git can use.
    """
    return git(root, "rev-parse", "--show-prefix").removesuffix("\n")


def top_of(root: Path) -> Path:
    """Return the top folder of the project's Git repository."""
    return Path(git(root, "rev-parse", "--show-toplevel").removesuffix("\n"))


def read_blobs(root: Path, objects: list[str]) -> Iterator[bytes | None]:
    """Yield the bytes of each `<commit>:./<path>` or object, by one Git process; None if missing.

    The path is relative to `root`.

    Raises:
        GitError: Git fails, as for a path outside the repository; the message has Git's own reason.
    """
    done = subprocess.run(
        ["git", "cat-file", "--batch"],
        cwd=root,
        env=environment(),
        input="\n".join(objects).encode() + b"\n",
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        why = done.stderr.decode(errors="replace").strip()
        raise GitError(f"git cat-file failed in {root}: {why}")
    text, at = done.stdout, 0
    for _ in objects:
        end = text.index(b"\n", at)
        header = text[at:end].split(b" ")
        at = end + 1
        if header[-1] == b"missing":
            yield None
            continue
        size = int(header[-1])
        yield text[at : at + size]
        at += size + 1


def clone_shared(root: Path, folder: Path, commit: str, *, refs: str) -> None:
    """Clone the repository of a project into an empty folder, and check out a commit.

    Args:
        root: the project.
        folder: of the clone, which uses the objects of the repository.
        commit: that of a branch, or of one of `refs`.
        refs: what to fetch besides branches, as Git's refspec: a shallow repository shares no
            objects.
    """
    top = str(top_of(root))
    git(folder, "clone", "--quiet", "--shared", "--no-checkout", top, ".")
    git(folder, "fetch", "--quiet", top, refs)
    git(folder, "checkout", "--quiet", "--detach", commit)


def environment() -> dict[str, str]:
    """Return the environment variables without those that Git sets for hooks."""
    return {name: value for name, value in os.environ.items() if name not in _HOOK}
