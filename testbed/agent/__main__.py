"""`python -IS ... testbed.agent.__main__.main()`: the agent over its standard input and output."""

from __future__ import annotations

from testbed.agent import loop


def main() -> int:
    """Serve until end of input; 0 always, because whoever started it reads answers and not this."""
    loop.prepare()
    loop.Loop(loop.Agent()).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
