"""Folders of `.fieldguide/` that outlive a run, each for one set of inputs.

DVC deletes the outputs of a stage before each run, and the workspace of an experiment after it.
What is kept between runs is therefore in the project's own `.fieldguide/`. The name of its folder
is a hash of everything that it depends on, so that it is never found with other params, data, code
or libraries. `make clean` deletes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any


def cache_folder(kind: str, *values: Any) -> Path:
    """Return `.fieldguide/<kind>/<key>/` of the project; equal JSON values give an equal key.

    DVC sets DVC_ROOT to the project of an experiment that runs in a workspace. A stage that a
    person starts runs in the project itself.
    """
    text = json.dumps(values, sort_keys=True, allow_nan=False)
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()) / ".fieldguide" / kind / key


def code_sha256() -> str:
    """Return a hash of every fieldguide module that this process has imported."""
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and (name == "fieldguide" or name.startswith("fieldguide.")):
            digest.update(f"{name}\n".encode() + Path(file).read_bytes())
    return digest.hexdigest()
