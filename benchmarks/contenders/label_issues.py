"""Let cleanlab judge labels, and CleanVision photos; benchmarks/audit.py compares the answers.

python benchmarks/contenders/label_issues.py labels in.npz out.npz
python benchmarks/contenders/label_issues.py photos FOLDER out.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def judge_labels(source: Path, target: Path) -> None:
    """Read `labels` and `probabilities`; write which labels are doubtful, and scores of all."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    given = np.load(source)
    labels, probabilities = given["labels"], given["probabilities"]
    found = {
        name: get_label_quality_scores(labels, probabilities, method=name)
        for name in ("self_confidence", "normalized_margin")
    }
    doubtful = find_label_issues(labels, probabilities, n_jobs=1)
    np.savez(target, allow_pickle=False, doubtful=doubtful, **found)


def judge_photos(folder: Path, target: Path) -> None:
    """Write the names of the photos that CleanVision finds, by its kinds."""
    from cleanvision import Imagelab

    lab = Imagelab(data_path=str(folder))
    kinds = ("dark", "light", "blurry", "low_information", "odd_aspect_ratio", "odd_size")
    lab.find_issues({kind: {} for kind in kinds}, n_jobs=1)
    found = {
        kind: [Path(name).name for name in lab.issues.index[lab.issues[f"is_{kind}_issue"]]]
        for kind in kinds
    }
    target.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    what, given, written = sys.argv[1:]
    {"labels": judge_labels, "photos": judge_photos}[what](Path(given), Path(written))
