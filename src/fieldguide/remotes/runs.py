"""Push DVC's run cache so that another machine can restore its runs.

`dvc push --run-cache` pushes the record of every run, but not its metrics and plots with
`cache: false`, which DVC keeps in its cache to restore them. A machine that pulls such a run misses
them and runs the stage again. Checked with DVC 3.67.1.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from fieldguide.remotes.storage import RemoteError


def push_runs(root: Path, *, remote: str | None = None) -> tuple[int, int]:
    """Push the record of every run in the local cache, with its metrics and plots.

    Cached outputs, such as models, are pushed by `dvc push` and `dvc exp push`.

    Args:
        root: the project.
        remote: name; None for DVC's default remote.

    Returns:
        Number of runs, and number of metrics and plots that the remote did not have.

    Raises:
        RemoteError: there is no project or no such remote, or a file cannot be pushed.
    """
    from dvc.exceptions import DvcException  # noqa: PLC0415 - slow
    from dvc.repo import Repo  # noqa: PLC0415
    from dvc_data.hashfile.hash_info import HashInfo  # noqa: PLC0415

    try:
        with Repo(str(root)) as repo:
            uncached = {out.def_path for out in repo.index.outs if not out.use_cache}
            runs = repo.stage_cache.push(remote)
            hashes = set()
            for key, value in runs:
                run = Path(repo.stage_cache.cache_dir, key[:2], key, value)
                outs = yaml.safe_load(run.read_text(encoding="utf-8"))["outs"]
                hashes |= {out["md5"] for out in outs if out["path"] in uncached}
            known = {HashInfo("md5", md5) for md5 in hashes if repo.cache.local.exists(md5)}
            result = repo.cloud.push(known, remote=remote)
    except DvcException as err:
        raise RemoteError(f"{root.resolve()}: the run cache cannot be pushed ({err})") from err
    if result.failed:
        raise RemoteError(f"{len(result.failed)} of {len(known)} metrics and plots were not pushed")
    return len(runs), len(result.transferred)
