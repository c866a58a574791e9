"""The commands that our own programs are inside a host: a launcher for each module of theirs with a `main`.

Standard library only: the builder of a lab uses it too.
"""

from __future__ import annotations

from pathlib import Path

LIBRARY = "/opt/testbed/lib"  # in a host; the launchers lie in /opt/testbed/bin
_LAUNCHER = """#!{python} -IS
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, "{library}")
from testbed.programs.{name} import main
sys.exit(main())
"""


def launchers(programs: Path, python: str) -> dict[str, str]:
    """Name of the command -> the text of its launcher. `python` is the interpreter's path in the host."""
    return {
        module.stem: _LAUNCHER.format(python=python, library=LIBRARY, name=module.stem)
        for module in sorted(programs.glob("[!_]*.py"))
        if "\ndef main(" in module.read_text()
    }
