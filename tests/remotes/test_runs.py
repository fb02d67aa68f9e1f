"""A run that `push_runs` has pushed is restored in another clone."""

import pytest
from project import remote_at

from fieldguide.remotes.runs import push_runs
from fieldguide.remotes.storage import RemoteError

pytestmark = pytest.mark.slow
STAGES = """
stages:
  double:
    cmd: cat number.txt number.txt > model && cp number.txt metrics.json
    deps: [number.txt]
    outs: [model]
    metrics:
      - metrics.json: {cache: false}
"""


def test_another_clone_restores_the_run_with_its_metrics(small, tmp_path):
    (small.folder / "dvc.yaml").write_text(STAGES, encoding="utf-8")
    (small.folder / ".gitignore").write_text("number.txt\nmetrics.json\n", encoding="utf-8")
    small.configure(remote_at(tmp_path / "storage"))
    small.git("add", ".")
    small.git("commit", "--quiet", "--message", "a stage")  # and no dvc.lock
    (small.folder / "number.txt").write_text("7", encoding="utf-8")
    small.dvc("repro")
    small.dvc("push")
    assert push_runs(small.folder) == (1, 1)
    assert "Pushed 1 runs, and 0 metrics" in small.fieldguide("remote", "push-runs")

    other = small.clone(tmp_path / "other")
    (other.folder / "number.txt").write_text("7", encoding="utf-8")
    assert "Stage 'double' is cached - skipping run" in other.dvc("repro", "--pull")
    assert other.read("metrics.json") == b"7"
    assert other.read("model") == b"77"


def test_an_unknown_remote_is_refused(small):
    with pytest.raises(RemoteError, match=r"the run cache cannot be pushed.*nowhere"):
        push_runs(small.folder, remote="nowhere")
