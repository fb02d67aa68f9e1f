"""One project with two runs, recorded by Git and DVC."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from results import (
    BEE,
    OUTPUTS,
    PAIRS,
    PARAMS,
    write_figures,
    write_test,
    write_timing,
    write_train,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def run_command():
    """Runs a command in a folder; `fieldguide` is that of this tree."""

    def run(root, *command, status=0):
        env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "DVC_NO_ANALYTICS": "1"}
        env |= {"PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
        if command[0] == "fieldguide":
            command = (sys.executable, "-m", "fieldguide.cli", *command[1:])
        done = subprocess.run(
            command, cwd=root, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


@pytest.fixture(scope="session")
def project(tmp_path_factory, run_command):
    """Two commits: "first", 12 of 20 right after two epochs, and main, 14 of 20 after three."""
    root = tmp_path_factory.mktemp("project")
    in_git = [path for paths in OUTPUTS.values() for path in paths]
    stage = {
        "cmd": "cp -R made/. .",
        "deps": ["made", "photos.zip", "src/code.py"],
        "params": list(PARAMS),
        "outs": ["models/classifier", "plots/figures", "data/prepared"],
        "plots": [{path: {"cache": False}} for path in in_git],
    }
    run_command(root, "git", "init", "-b", "main")
    run_command(root, "git", "config", "user.name", "A")
    run_command(root, "git", "config", "user.email", "a@example.org")
    run_command(root, "dvc", "init", "--quiet")
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"all": stage}}))
    (root / "photos.zip").write_bytes(b"photos")
    (root / "src").mkdir()
    worse = [("crab", BEE)] * 2 + PAIRS[:-2]
    for tag, epochs, pairs, machine in (
        ("first", 2, worse, "cpu: B"),
        ("second", 3, PAIRS, "cpu: A"),
    ):
        params = {**PARAMS, "train": {**PARAMS["train"], "epochs": epochs}}
        (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        (root / "src" / "code.py").write_text(f"# {tag}")
        made = root / "made"
        write_train(made, epochs=epochs, machine=machine)
        write_test(made, pairs)
        write_figures(made, "red" if tag == "first" else "green")
        for folder, text in (("data/prepared", "{}"), ("models/classifier", tag)):
            (made / folder).mkdir(parents=True, exist_ok=True)
            (made / folder / "file.json").write_text(text)
        run_command(root, "dvc", "repro", "--quiet")
        lock = yaml.safe_load((root / "dvc.lock").read_text())
        outs = {out["path"]: out["md5"] for out in lock["stages"]["all"]["outs"]}
        write_timing(root, outs["models/classifier"])
        run_command(root, "git", "add", "--all")
        run_command(root, "git", "commit", "-m", f"{tag} <i>run</i>")
        run_command(root, "git", "tag", tag)
    return root
