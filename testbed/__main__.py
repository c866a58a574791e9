"""The command `testbed`. Ctrl-C while it is still being loaded ends it like any command, without a traceback."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` takes milliseconds to load: a traceback at Ctrl-C


def main() -> None:
    """Before all else is loaded, Python's own answer to Ctrl-C goes: an exception wherever it happens to be."""
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from testbed import cli

    cli.main()


if __name__ == "__main__":
    main()
