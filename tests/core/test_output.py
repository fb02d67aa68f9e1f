"""Output on terminals of other encodings."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys
from fieldguide.core.output import accept_any_text, print_utf8
accept_any_text()
print("caf\u00e9 \u65e5\u672c")
print("\u2013", file=sys.stderr)
print_utf8()
print("\u65e5\u672c")
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_nothing_fails_and_what_programs_read_is_utf8(encoding):
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    people, programs = done.stdout.splitlines()
    cafe = b"caf\\xe9" if encoding == "ascii" else "caf\u00e9".encode(encoding)
    assert people == cafe + rb" \u65e5\u672c"
    assert programs.decode("utf-8") == "\u65e5\u672c"
    assert done.stderr.strip()
