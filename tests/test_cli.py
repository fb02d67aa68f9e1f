"""The command, as a user starts it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOOD = """\
method: random
metric: {name: val/acc}
run_cap: 2
parameters:
  activation: {values: [relu, gelu]}
"""


@pytest.fixture
def fieldguide(tmp_path):
    """Runs the command in a folder that has params.yaml and a sweep file."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "good.yaml").write_text(GOOD)

    def run(*arguments, status=0):
        done = subprocess.run(
            [sys.executable, "-m", "fieldguide.cli", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if status == 0 else done.stderr

    run.folder = tmp_path
    return run


# Each of the codes in a process of its own, with what all of them need imported once. A line each.
IMPORTED = """
import os, sys
shared, codes = sys.argv[1], sys.argv[2:]
exec(shared)
for code in codes:
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        exec(code)
        print("imported:", *sys.modules, flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(code)
"""


def imported(*codes, shared=""):
    """Which modules are there after each of the codes."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, shared, *codes],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("imported: ")]
    assert len(lines) == len(codes)
    return [set(line.split()) for line in lines]


def test_help_lists_the_commands_and_imports_nothing_heavy(fieldguide):
    listed = fieldguide("sweep", "--help")
    for command in ("run", "list", "best", "report", "gc"):
        assert f" {command} " in listed
    code = (
        "import sys, fieldguide.cli as c; sys.argv = ['fieldguide', '--help']\n"
        "try: c.main()\nexcept SystemExit: pass\nprint()"
    )
    heavy = {"torch", "dvc", "optuna", "plotly", "sklearn", "matplotlib", "numpy", "pydantic"}
    (found,) = imported(code)
    assert found & (heavy | {"rich"}) == set()


@pytest.mark.parametrize("group", [(), ("sweep",), ("remote",)])
def test_help_tells_all_of_what_each_command_does(fieldguide, group):
    commands = fieldguide(*group, "--help").partition("Commands:")[2].splitlines()
    assert len(commands) > 1
    assert [line for line in commands if line.endswith("...")] == []


def imports_of(stage):
    """The imports of a stage's script, also those in its main."""
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return "; ".join(map(ast.unparse, found))


def test_prepare_imports_what_it_uses_alone():
    (found,) = imported("import stages.prepare")
    assert found & {"torch", "sklearn", "scipy", "matplotlib"} == set()


def test_stages_import_pytorch_after_its_settings():
    for name in ("train", "evaluate", "visualize"):
        (found,) = imported(f"import stages.{name}")
        assert found & {"torch", "numpy", "sklearn"} == set()


def test_what_uses_pytorch_imports_nothing_else_that_it_does_not_use():
    predict, evaluate, train, visualize = imported(
        "import fieldguide.inference.answers, fieldguide.inference.find, "
        "fieldguide.inference.torch_classifier",
        *(imports_of(stage) for stage in ("evaluate", "train", "visualize")),
        shared="import torch",
    )
    other = {"dvc", "dvclive", "timm", "torchvision", "torch._dynamo"}
    assert predict & (other | {"sklearn", "scipy", "matplotlib"}) == set()
    assert evaluate & (other | {"matplotlib"}) == set()
    assert train & (other | {"sklearn", "scipy", "matplotlib", "rich"}) == set()
    assert visualize & ((other - {"torch._dynamo"}) | {"sklearn", "scipy"}) == set()


def test_a_mistake_is_a_message_and_status_1(fieldguide):
    assert fieldguide("sweep", "run", "none.yaml", status=1) == (
        "fieldguide: none.yaml: cannot be read (No such file or directory)\n"
    )
    (fieldguide.folder / "bad.yaml").write_text(GOOD.replace("gelu", "tanh"))
    assert fieldguide("sweep", "list", "bad.yaml", status=1) == (
        "fieldguide: bad.yaml: line 5: model.activation: found 'tanh'; "
        "allowed: 'relu', 'gelu', 'silu' or 'mish'\n"
    )
    assert "Invalid value for '--jobs'" in fieldguide(
        "sweep", "run", "good.yaml", "-j", "0", status=2
    )


def test_outside_of_a_project_nothing_is_begun(fieldguide):
    error = fieldguide("sweep", "run", "good.yaml", status=1)
    assert "not a git repository" in error
    assert not list(fieldguide.folder.glob("*.study"))
    assert not (fieldguide.folder / ".fieldguide").exists()


@pytest.mark.parametrize("command", [["list"], ["best"], ["gc", "--keep-top", "1"]])
def test_without_a_finished_trial_there_is_nothing_to_show(fieldguide, command):
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x", *arguments],
            cwd=fieldguide.folder,
            check=True,
        )
    error = fieldguide("sweep", command[0], "good.yaml", *command[1:], status=1)
    assert "good.yaml: no trial has finished; fieldguide sweep run good.yaml" in error
