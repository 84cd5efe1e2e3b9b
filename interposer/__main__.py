"""`python -m interposer`, and the `interposer` command."""

from __future__ import annotations


def main() -> None:
    from .cli import main as run

    run()


if __name__ == "__main__":
    main()
