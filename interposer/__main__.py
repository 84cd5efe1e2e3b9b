"""`python -m interposer`, and the `interposer` command."""

from __future__ import annotations

import sys


def main() -> None:
    """The shim must start in milliseconds, so it does not wait for the command line to be imported."""
    if sys.argv[1:2] == ["connect"] and not {"-h", "--help"} & set(sys.argv[2:]):
        from .shim import main as connect

        sys.exit(connect(sys.argv[2:]))
    from .cli import main as run

    run()


if __name__ == "__main__":
    main()
