"""Messages between the benchmark and a contender's process."""

import sys

import contender
import pytest

CHILD = """
import sys
from contender import Link

link, settings = Link.open()
if settings["mode"] == "out":
    link.leave_out("no such library")
elif settings["mode"] == "dies":
    sys.exit("out of luck")
else:
    counts = iter(range(100))  # 0 warms up
    print("a library prints")  # must not be read as an answer
    link.serve(lambda: settings["step"] * next(counts))
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    (tmp_path / "contenders").mkdir()
    (tmp_path / "contenders" / "count.py").write_text(CHILD, encoding="utf-8")
    here = contender.HERE
    monkeypatch.setattr(
        contender, "environment", lambda: {"PYTHONPATH": str(here), "PATH": "/usr/bin:/bin"}
    )
    monkeypatch.setattr(contender, "HERE", tmp_path)
    return lambda mode, step=1: (sys.executable, "count", {"mode": mode, "step": step})


def test_contenders_answer_in_turn_after_warming_up(child, capsys):
    wanted = {"ones": child("count"), "out": child("out"), "tens": child("count", 10)}
    with contender.contenders(wanted) as (ways, left_out):
        assert list(ways) == ["ones", "tens"]
        # Each has warmed up once; that figure was 0.
        assert [ways["ones"](), ways["tens"](), ways["tens"](), ways["ones"]()] == [1, 10, 20, 2]
        assert left_out == {"out": "no such library"}
    assert "out: left out, no such library" in capsys.readouterr().out


def test_the_error_output_of_a_contender_that_dies_is_shown(child):
    with (
        pytest.raises(SystemExit, match=r"(?s)count\.py .*exit status 1.*out of luck"),
        contender.contenders({"dies": child("dies")}),
    ):
        pass


def test_contenders_use_all_cores_and_the_code_of_this_tree(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    env = contender.environment()
    assert "OMP_NUM_THREADS" not in env
    assert env["PYTHONPATH"].split(":") == [
        str(contender.ROOT / "src"),
        str(contender.ROOT / "benchmarks"),
    ]


def test_a_missing_environment_of_peers_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PEERS", str(tmp_path))
    with pytest.raises(SystemExit, match=r"bin/python does not exist; `make bench` makes it"):
        contender.peers_python()
