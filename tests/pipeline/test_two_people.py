"""Two people, a Git repository and an S3 bucket between them, and a pipeline for both."""

import pytest

pytestmark = pytest.mark.slow
MODEL = "models/classifier/model.safetensors"


def experiments(project):
    """Commit of each experiment that this clone knows, by its name."""
    refs = project.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps/")
    found = [line.split() for line in refs.splitlines()]
    return {ref.split("/")[-1]: commit for commit, ref in found if ref.count("/") == 4}


def run_experiment(project, name, *settings):
    changes = [word for setting in settings for word in ("-S", setting)]
    project.dvc("exp", "run", "--quiet", "--name", name, *changes, "train")


@pytest.fixture
def ann(project, s3, tmp_path):
    """Who has the pipeline's results, three experiments, and has pushed all."""
    project.git("init", "--quiet", "--bare", "--initial-branch=main", tmp_path / "hub.git")
    project.git("remote", "add", "origin", tmp_path / "hub.git")
    url = f"{s3.bucket('two-people')}/fieldguide"
    project.dvc("remote", "add", "--quiet", "--default", "storage", url)
    project.dvc("remote", "modify", "storage", "endpointurl", s3.endpoint)
    project.dvc("remote", "modify", "storage", "verify", "true")
    (project.folder / ".dvc" / "config.local").write_text(s3.keys_of_remote())
    # The sample's archive is in Git; as DVC's it is an object like all others.
    project.git("rm", "--quiet", "--cached", "data/photos.zip")
    project.dvc("add", "--quiet", "data/photos.zip")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "remote storage, and the archive in it")
    run_experiment(project, "slow", "train.epochs=1", "train.learning_rate=0.001")
    for neurons in (2, 3):  # more settings with the same model, so that they take seconds
        run_experiment(project, f"few-{neurons}", f"visualize.neurons={neurons}")
    project.git("checkout", "--quiet", ".")
    project.dvc("checkout", "--quiet")
    project.dvc("push")
    project.git("push", "--quiet", "origin", "main")
    project.dvc("exp", "push", "origin", "slow", "few-2", "few-3")
    return project


def test_data_model_and_experiments_are_shared(ann, s3, tmp_path):
    assert s3.secret not in ann.git("grep", "-h", "", "HEAD", "--", ".dvc")
    assert "all there" in ann.fieldguide("remote", "verify", "--deep", "--all-experiments")

    bob = ann.clone(tmp_path / "bob", tmp_path / "hub.git")
    bob.env |= {"AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret}
    bob.dvc("pull")
    for name in ("data/photos.zip", "data/prepared/dataset.json", MODEL):
        assert bob.read(name) == ann.read(name)
    assert "Running stage" not in bob.dvc("repro")
    assert bob.git("status", "--porcelain") == ""
    assert experiments(bob) == {}
    bob.dvc("exp", "pull", "origin", "slow", "few-2", "few-3")
    assert experiments(bob) == experiments(ann)
    run_experiment(bob, "sgd", "train.epochs=1", "train.optimizer=sgd")
    bob.dvc("exp", "push", "origin", "sgd")

    ann.dvc("exp", "pull", "origin", "sgd")
    assert set(experiments(ann)) == {"slow", "few-2", "few-3", "sgd"}
    assert experiments(ann) == experiments(bob)
    ann.dvc("exp", "apply", "sgd")
    assert ann.read(MODEL) == bob.read(MODEL)

    # CI downloads nothing where nothing changed, and what a stage needs where something did.
    ci = ann.clone(tmp_path / "ci", tmp_path / "hub.git")
    ci.env = bob.env
    assert "Running stage" not in ci.dvc("repro", "--allow-missing", "--dry")
    ci.edit("params.yaml", "val_fraction: 0.2", "val_fraction: 0.3")
    output = ci.dvc("repro", "--pull", "--allow-missing", "prepare")
    assert output.count("Running stage") == 1
    assert ci.read("data/photos.zip") == ann.read("data/photos.zip")
    assert not (ci.folder / MODEL).exists()
