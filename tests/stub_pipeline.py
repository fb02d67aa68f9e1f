"""A pipeline with our stages, files and hashes that trains nothing: params.yaml says what is right.

Two classes, a and b, have 100 test photos each; `train.a` and `train.b` of them are classified
correctly.
"""

import os
import shutil
from pathlib import Path

import yaml
from project import Project

ROOT = Path(__file__).resolve().parents[1]
EACH = 100  # test photos of a class
PARAMS = """\
compute: {{portable: {portable}, threads: 1}}
data: {{image_size: {size}, new_photos: {new}}}
model: {{conv_layers: 2}}
train: {{a: {a}, b: {b}}}
evaluate: {{calibration_bins: 15}}
visualize: {{neurons: 1}}
"""
DEFAULTS = {"portable": "true", "size": 32, "new": 0, "a": 70, "b": 80}
STUB = """\
import json, math, os, sys
from pathlib import Path
import yaml
from fieldguide.core.files import folder_md5, write_bytes, write_csv, write_json, write_text

stage, each = sys.argv[1], 100
params = yaml.safe_load(Path("params.yaml").read_text())
if stage == "prepare":
    photos = [[f"test/{c}/{k:03d}.png", c, f"{c}{k}"] for c in "ab" for k in range(each)]
    if params["data"]["new_photos"]:
        photos[-1][2] = "another"
    # Larger photos are stored in more shards and in another order.
    shards = {"test": photos}
    if params["data"]["image_size"] > 32:
        shards = {"test-0": photos[:30:-1], "test-1": photos[30::-1]}
    for name, rows in shards.items():
        write_csv(Path(f"data/prepared/{name}.csv"), ["source", "class", "sha256"], rows)
    write_json(Path("data/prepared/dataset.json"), params["data"])
    left_out = [["a/1.png", "a", "duplicate", "copy of another photo", "a/2.png", "a"]]
    header = ["file", "class", "reason", "detail", "other_file", "other_class"]
    write_csv(Path("data/prepared/left_out.csv"), header, left_out)
    counts = {"train": 8, "val": 4, "test": 2 * each, "left_out": 1}
    write_json(Path("metrics/prepare.json"), {"photos": counts})
    splits = [[c, s, n // 2, n // 2, 0] for c in "ab" for s, n in list(counts.items())[:3]]
    header = ["class", "split", "photos", "groups", "near_copies"]
    write_csv(Path("plots/classes.csv"), header, splits)
    reasons = [["unreadable", 0], ["duplicate", 1]]
    write_csv(Path("plots/left_out.csv"), ["reason", "files"], reasons)
elif stage == "train":
    model = Path("models/classifier")
    rounding = int(os.environ.get("STUB_ROUNDING", 0))  # as of another processor
    right = {"a": params["train"]["a"] - rounding, "b": params["train"]["b"]}
    write_json(model / "model.json", right)
    environment = {"portable": params["compute"]["portable"], "libraries": {"torch": "2"}}
    write_json(Path("metrics/environment.json"), environment)
    write_text(Path("metrics/model_summary.txt"), "10 parameters\\n")
    found = {"best": {"val_acc": 0.5, "val_loss": 0.7}, "parameters": {"trained": 10, "all": 10}}
    write_json(Path("metrics/train/metrics.json"), found)
    names = ["epoch", "train_loss", "train_acc", "val_loss", "val_acc", "learning_rate", "kept"]
    epochs = [[1, 0.9, 0.4, 0.8, 0.4, 0.1, 0], [2, 0.7, 0.6, 0.7, 0.5, 0.01, 1]]
    write_csv(Path("plots/curves.csv"), names, epochs)
    timing = {"seconds": 60.5, "epochs_run": 2, "images_per_second": 8.0}
    timing["model"] = folder_md5(model)
    write_json(Path("metrics/timing.json"), {"train": timing})
elif stage == "evaluate":
    right = json.loads(Path("models/classifier/model.json").read_text())
    acc = sum(right.values()) / (2 * each)
    rows = []
    for label, other in ("ab", "ba"):
        for k in range(each):
            said = label if k < right[label] else other
            p = [0.8, 0.2] if said == "a" else [0.2, 0.8]
            rows.append([f"test/{label}/{k:03d}.png", label, said, *p])
    if Path("data/prepared/test-0.csv").exists():
        rows.reverse()
    write_csv(Path("metrics/predictions.csv"), ["source", "true", "predicted", "p_a", "p_b"], rows)
    scores = {"acc": acc, "bal_acc": acc, "macro_f1": acc, "top3_acc": 1.0}
    scores["ece"] = round(abs(acc - 0.8), 6)
    scores["coverage"] = 1.0
    nll = -(acc * math.log(0.8) + (1 - acc) * math.log(0.2))
    trust = {"photos": 2 * each, "temperature": 1.0, "nll": nll, "nll_before": nll}
    trust |= {"ece": scores["ece"], "ece_before": scores["ece"], "target_precision": 0.7}
    trust |= {"min_confidence": 0.75, "accepted": 2 * each, "right": sum(right.values())}
    trust["aurc"] = 1 - acc
    write_json(Path("metrics/trust.json"), trust)
    curve = [[1.0, 1 - acc, 0.8]]
    write_csv(Path("plots/risk_coverage.csv"), ["coverage", "risk", "confidence"], curve)
    write_json(Path("metrics/test.json"), {"test": scores})
    write_csv(Path("plots/confusion.csv"), ["actual", "predicted"], [row[1:3] for row in rows])
    names = ["confidence", "accuracy", "photos"]
    write_csv(Path("plots/reliability.csv"), names, [[0.8, acc, 2 * each]])
    classes = [[c, 0.5, right[c] / each, each] for c in "ab"]
    write_csv(Path("plots/per_class.csv"), ["class", "precision", "recall", "photos"], classes)
else:
    write_bytes(Path("plots/figures/filters_conv1.png"), b"PNG")
this = yaml.safe_load(Path("dvc.yaml").read_text())["stages"][stage]
for out in [*this.get("metrics", ()), *this.get("plots", ())]:
    if isinstance(out, dict):
        (path,) = map(Path, out)
        write_bytes(Path("metrics/copies") / stage / path.name, path.read_bytes())
"""


class StubProject(Project):
    """A folder with the stub pipeline, in which commands are run as a user would."""

    def __init__(self, folder):
        super().__init__(folder)
        self.env |= {"PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}

    def write_pipeline(self, **values):
        """Write dvc.yaml, params.yaml, checks.yaml and the stub."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "dvc.yaml").write_text(yaml.safe_dump(_stages()), encoding="utf-8")
        (self.folder / "stub.py").write_text(STUB, encoding="utf-8")
        shutil.copy(ROOT / "checks.yaml", self.folder)
        self.set_params(**values)

    def set_params(self, **values):
        text = PARAMS.format(**DEFAULTS | values)
        (self.folder / "params.yaml").write_text(text, encoding="utf-8")

    def start_repository(self):
        """Make it a Git and DVC repository whose default remote is the folder beside it."""
        self.folder.mkdir(exist_ok=True)
        self.git("init", "--quiet", "--initial-branch", "main")
        self.name_user()
        self.dvc("init", "--quiet")
        storage = os.fspath(self.folder.with_name("storage"))
        self.dvc("remote", "add", "--quiet", "--default", "storage", storage)

    def commit(self, message):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)


def _stages():
    """The stages of our dvc.yaml, with the stub in place of their code and of the archive."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    outs = {
        out if isinstance(out, str) else next(iter(out))
        for stage in stages.values()
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, ())
    }
    for name, stage in stages.items():
        stage["cmd"] = f"python stub.py {name}"
        stage["deps"] = ["stub.py", *(dep for dep in stage["deps"] if dep in outs)]
    return {"stages": stages}
