"""Run the command `fieldguide` in the process of the tests, where PyTorch is already loaded."""

import contextlib
import io
import subprocess

import pytest

from fieldguide.cli import main


def fieldguide_here(*arguments, cwd):
    """Run `fieldguide` and return its exit status and output as `subprocess.run` does.

    For tests of its messages and files. Other tests run it as a process of its own.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(cwd)
        patch.setenv("NO_COLOR", "1")
        patch.setattr("sys.argv", ["fieldguide", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    status = ended.value.code or 0
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())
