"""Which modules of fieldguide a file imports, read from its source."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "fieldguide"


def module_file(name):
    """File of fieldguide.x.y; None if there is no such module."""
    place = ROOT / "src" / name.replace(".", "/")
    found = [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return found[0] if found else None


def imported_files(file, *, packages=False):
    """Files of ours that a file imports anywhere, inside functions too.

    Args:
        file: its path.
        packages: with the __init__.py of each package that Python runs on the way.
    """
    names = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []  # never run
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the module's name"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in inner if module_file(name)}
            names |= modules
            # `from package import module` needs the package only for names that are no module.
            if packages or modules != inner:
                names.add(node.module)
    ours = {name for name in names if name.split(".")[0] == "fieldguide"}
    if packages:
        ours = {
            ".".join(name.split(".")[:k]) for name in ours for k in range(1, name.count(".") + 2)
        }
    return {found for name in ours if (found := module_file(name))}


def closure(script):
    """A script and all files of ours that run with it."""
    seen, waiting = set(), {script}
    while waiting:
        file = waiting.pop()
        seen.add(file)
        waiting |= imported_files(file, packages=True) - seen
    return seen
