"""The commands of .github/workflows/ and .gitlab-ci.yml, run as they are written there.

They run in a real small project with a Git and a DVC remote. The real gh and curl write comments to
servers on loopback. What only GitHub's and GitLab's runners can do is not tested here;
check-jsonschema and zizmor check the files in `make lint`.
"""

import os
import shutil
import subprocess

import pytest
import yaml
from forge import EXPRESSION, ROOT, Forge, bash, carry_artifact, environment, run_job, workflow

pytestmark = pytest.mark.slow
SERVER = "https://github.example.org"


@pytest.fixture(scope="module")
def team(finished, tmp_path_factory):
    """A Git remote with main, whose results are in a DVC remote, and two branches."""
    folder = tmp_path_factory.mktemp("team")
    shutil.copytree(finished.folder, folder / "mine", symlinks=True)
    mine = type(finished)(folder / "mine")
    mine.dvc("remote", "add", "--default", "storage", str(folder / "storage"))
    shutil.copy(ROOT / "checks.yaml", folder / "mine")
    mine.git("add", ".")
    mine.git("commit", "--quiet", "--message", "remote and checks")
    mine.dvc("push")
    mine.git("init", "--quiet", "--bare", "--initial-branch=main", str(folder / "remote.git"))
    mine.git("remote", "add", "origin", str(folder / "remote.git"))
    mine.git("checkout", "--quiet", "-b", "words")
    (mine.folder / "README.md").write_text("# Photos\n", encoding="utf-8")
    mine.git("add", ".")
    mine.git("commit", "--quiet", "--message", "words")
    mine.git("checkout", "--quiet", "-b", "worse", "main")
    mine.edit("params.yaml", "epochs: 6", "epochs: 1")
    mine.edit("params.yaml", "learning_rate: 0.002", "learning_rate: 1.0e-06")
    mine.git("commit", "--quiet", "--all", "--message", "next to nothing is learned")
    mine.git("push", "--quiet", "--all", "origin")
    return folder


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate for localhost; gh gets it as a trusted one."""
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", file, "-out", file], check=True, capture_output=True)
    return file


@pytest.fixture(scope="module")
def github(certificate):
    """A server that the real gh takes for GitHub Enterprise."""
    if shutil.which("gh") is None:
        if os.environ.get("CI"):
            pytest.fail("gh is not installed")
        pytest.skip("gh is not installed")
    forge = Forge(certificate)
    yield forge
    forge.close()


def clone(team, target, branch):
    """Clone a branch as a runner does, without the team's DVC cache."""
    command = ["git", "clone", "--quiet", "--branch", branch, str(team / "remote.git"), str(target)]
    subprocess.run(command, check=True)
    return target


def revision(folder, name):
    done = subprocess.run(
        ["git", "rev-parse", name], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def on_github(folder, tmp_path, *, event, number, values):
    """Return the environment variables of a run, and the value of each expression."""
    env = environment(tmp_path) | {
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_REPOSITORY": "team/photos",
        "GITHUB_SERVER_URL": SERVER,
    }
    own = "github.event.pull_request.head.repo.full_name == github.repository"
    return env, {
        "github.event.pull_request.head.repo.fork && ' ' || '--pull'": "--pull",
        "secrets.AWS_ACCESS_KEY_ID": "",
        "secrets.AWS_SECRET_ACCESS_KEY": "",
        "github.token": "token",
        "github.repository": "team/photos",
        "github.event_name == 'pull_request'": str(event == "pull_request").lower(),
        f"!cancelled() && !github.event.created && (github.event_name == 'push' || {own})": "true",
        "github.event.pull_request.base.sha || github.event.before": revision(
            folder, "origin/main"
        ),
        "github.event.pull_request.number": number,
        "github.event.pull_request.number || github.ref_name": number or "main",
        **values,
    }


def publish(team, github, certificate, tmp_path, *, folder, job, env, values):
    """Run the second job in a folder that has only the first job's artifact."""
    carry_artifact(job, folder, tmp_path / "next")
    second = workflow(".github/workflows/pipeline.yml")["jobs"]["publish"]
    assert EXPRESSION.fullmatch(second["if"])[1] in values
    second["env"]["REMOTE"] = str(team / "remote.git")
    env = env | {
        "GH_HOST": f"localhost:{github.port}",
        "GH_ENTERPRISE_TOKEN": "token",
        "SSL_CERT_FILE": str(certificate),
    }
    return run_job(second, cwd=tmp_path / "next", env=env, values=values)


def test_a_pull_request_that_changes_words_pulls_nothing_and_passes(
    team, github, certificate, tmp_path
):
    folder = clone(team, tmp_path / "clone", "words")
    env, values = on_github(folder, tmp_path, event="pull_request", number="7", values={})
    job = workflow(".github/workflows/pipeline.yml")["jobs"]["pipeline"]
    passed, printed = run_job(job, cwd=folder, env=env, values=values)
    assert passed, "\n".join(printed.values())
    assert "Running stage" not in printed["Reproduce"]
    assert not (folder / "data/prepared").exists()  # 90 MB in a project of size
    assert (folder / "plots/report.html").stat().st_size > 1_000_000
    arguments = {"folder": folder, "job": job, "env": env, "values": values}
    passed, printed = publish(team, github, certificate, tmp_path, **arguments)
    assert passed, "\n".join(printed.values())
    (comment,) = github.comments
    body, summary = comment["body"], (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert body.startswith("<!-- fieldguide -->\n")
    assert body.partition("\n")[2].strip() == summary.strip()
    assert "test.acc" in body
    assert "do not belong to its code" not in body
    # Each picture that the comment shows is in the commit that was pushed.
    commit = revision(team / "remote.git", "refs/fieldguide/pictures/7")
    links = [line for line in body.splitlines() if line.startswith("![")]
    assert len(links) == len(list((folder / "pictures").glob("*.png"))) > 3
    for line in links:
        address = line.partition("](")[2].rstrip(")")
        prefix = f"{SERVER}/team/photos/blob/{commit}/"
        assert address.startswith(prefix)
        name = address.removeprefix(prefix).removesuffix("?raw=true")
        shown = subprocess.run(
            ["git", "show", f"{commit}:{name}"],
            cwd=team / "remote.git",
            capture_output=True,
            check=True,
        )
        assert shown.stdout.startswith(b"\x89PNG")


def test_a_pull_request_with_worse_results_fails_and_its_comment_is_replaced(
    team, github, certificate, tmp_path
):
    before = len(github.comments)
    for body in ("Looks good to me <!-- fieldguide -->", "<!-- fieldguide -->\nAll is well"):
        github.comments.insert(0, {"id": 1, "body": body, "user": {"type": "User"}})
    folder = clone(team, tmp_path / "clone", "worse")
    env, values = on_github(folder, tmp_path, event="pull_request", number="8", values={})
    job = workflow(".github/workflows/pipeline.yml")["jobs"]["pipeline"]
    passed, printed = run_job(job, cwd=folder, env=env, values=values)
    assert not passed
    assert "Running stage 'train'" in printed["Reproduce"]
    assert "Running stage 'prepare'" not in printed["Reproduce"]
    arguments = {"folder": folder, "job": job, "env": env, "values": values}
    passed, printed = publish(team, github, certificate, tmp_path, **arguments)
    assert passed, "\n".join(printed.values())
    # The earlier comment is replaced; comments of people stay.
    assert len(github.comments) == 2 + max(before, 1)
    assert github.comments[0]["body"] == "<!-- fieldguide -->\nAll is well"
    assert github.comments[1]["body"] == "Looks good to me <!-- fieldguide -->"
    body = github.comments[2]["body"]
    assert "The results in this commit do not belong to its code and params" in body
    assert "test.acc" in body
    assert "train.epochs" in body  # from the report's list of changes
    del github.comments[:2]


def test_a_run_that_failed_before_the_gate_says_so(team, github, certificate, tmp_path):
    env, values = on_github(team / "mine", tmp_path, event="pull_request", number="9", values={})
    (tmp_path / "next").mkdir()
    env |= {"GH_HOST": f"localhost:{github.port}", "GH_ENTERPRISE_TOKEN": "token"}
    env["SSL_CERT_FILE"] = str(certificate)
    job = workflow(".github/workflows/pipeline.yml")["jobs"]["publish"]
    before = [dict(one) for one in github.comments]
    passed, printed = run_job(job, cwd=tmp_path / "next", env=env, values=values)
    assert passed, "\n".join(printed.values())
    assert "> **Not checked: the gate" in github.comments[-1]["body"]
    github.comments[:] = before


@pytest.mark.soak
def test_an_experiment_is_pushed_and_a_pull_request_with_its_params_is_not_trained_again(
    team, tmp_path
):
    folder = clone(team, tmp_path / "clone", "main")
    subprocess.run(["git", "config", "user.name", "bot"], cwd=folder, check=True)
    subprocess.run(["git", "config", "user.email", "bot@localhost"], cwd=folder, check=True)
    trap = "$(touch${IFS}stolen)"  # text from the form is never run as a command
    values = {"inputs.name": "wide", "inputs.params": f"train.epochs=2 train.seed=5 {trap}"}
    env, values = on_github(folder, tmp_path, event="workflow_dispatch", number="", values=values)
    job = workflow(".github/workflows/experiment.yml")["jobs"]["experiment"]
    passed, printed = run_job(job, cwd=folder, env=env, values=values)
    assert not passed  # DVC knows no such param
    assert not (folder / "stolen").exists()
    values["inputs.params"] = "train.epochs=2 train.seed=5"
    passed, printed = run_job(job, cwd=folder, env=env, values=values)
    assert passed, "\n".join(printed.values())
    assert "train.epochs" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    refs = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname)", "refs/exps"],
        cwd=team / "remote.git",
        capture_output=True,
        text=True,
        check=True,
    )
    assert refs.stdout.strip().endswith("/wide")

    other = clone(team, tmp_path / "other", "main")  # its dvc.lock knows nothing of the experiment
    params = yaml.safe_load((other / "params.yaml").read_text(encoding="utf-8"))
    params["train"] |= {"epochs": 2, "seed": 5}
    (other / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    env, values = on_github(other, tmp_path, event="pull_request", number="9", values={})
    job = workflow(".github/workflows/pipeline.yml")["jobs"]["pipeline"]
    job["steps"] = [step for step in job["steps"] if step.get("name") == "Reproduce"]
    passed, printed = run_job(job, cwd=other, env=env, values=values)
    assert passed, printed["Reproduce"]
    assert "Stage 'train' is cached - skipping run" in printed["Reproduce"]
    assert "Running stage" not in printed["Reproduce"]
    model = "models/classifier/model.safetensors"
    assert (other / model).read_bytes() == (folder / model).read_bytes()


def test_gitlab_does_the_same(team, tmp_path):
    forge = Forge()
    theirs = {"id": 1, "body": "<!-- fieldguide -->\nAll is well.", "author": {"id": 4}}
    forge.comments.append(theirs.copy())
    file = workflow(".gitlab-ci.yml")
    folder = clone(team, tmp_path / "clone", "words")
    env = environment(tmp_path) | {
        "AGAINST": revision(folder, "origin/main"),
        "CI_MERGE_REQUEST_IID": "3",
        "GITLAB_TOKEN": "token",
        "CI_API_V4_URL": f"http://127.0.0.1:{forge.port}/api/v4",
        "CI_PROJECT_ID": "42",
        "PULL": file["variables"]["PULL"],
    }
    try:
        job = file["pipeline"]
        # The last command runs twice: its second comment replaces the first one.
        for lines in (job["script"], job["after_script"], job["after_script"][-1:]):
            status, output = bash("\n".join(lines), cwd=folder, env=env)
            assert status == 0, output
        first, comment = forge.comments
        assert first == theirs
        assert comment["body"].startswith("<!-- fieldguide -->\n")
        assert "test.acc" in comment["body"]
        pictures = list((folder / "pictures").glob("*.png"))
        assert len(forge.uploads) == 2 * len(pictures) > 6
        assert all(b"\x89PNG" in body for body in forge.uploads)
        assert f"/uploads/{len(forge.uploads)}.png" in comment["body"]
        for path in job["artifacts"]["paths"]:
            assert (folder / path).exists(), path
        assert forge.requests[-1] == ("PUT", "/api/v4/projects/42/merge_requests/3/notes/101")
        # Without pictures, and without a result of the gate.
        shutil.rmtree(folder / "pictures")
        (folder / "check.md").unlink()
        status, output = bash(job["after_script"][-1], cwd=folder, env=env)
        assert status == 0, output
        assert "> **Not checked: the gate" in comment["body"]
    finally:
        forge.close()


def test_a_pipe_fails_if_one_of_its_commands_fails():
    """Otherwise a failed list of comments would look empty, and a second comment be written."""
    for name in ("pipeline", "experiment"):
        assert workflow(f".github/workflows/{name}.yml")["defaults"] == {"run": {"shell": "bash"}}


def test_github_and_gitlab_run_the_same_commands():
    jobs = workflow(".github/workflows/pipeline.yml")["jobs"]
    theirs = [step.get("run", "") for step in jobs["pipeline"]["steps"]]
    gitlab = workflow(".gitlab-ci.yml")["pipeline"]
    ours = [line for part in ("script", "after_script") for line in gitlab[part]]
    for command in ("dvc repro", "fieldguide check", "fieldguide report"):
        (here,) = [line for line in ours if line.startswith(command)]
        (there,) = [line for line in theirs if line.startswith(command)]
        assert here == there
