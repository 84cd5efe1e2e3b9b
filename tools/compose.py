"""Read compose files as the Compose Specification has them, and exit 1 at the first that cannot be read so.

    compose.py FILE…

Needs compose-spec beside it (`make lint-deploy` provides it): a parser that takes no unknown key and no wrong type.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path


def main(files: list[str]) -> int:
    parser = import_module("compose_spec").PyCompose
    for file in files:
        try:
            read = parser.from_yaml(Path(file).read_text())
        except ValueError as fault:
            sys.stderr.write(f"{file}: {fault}\n")
            return 1
        print(f"{file}: {', '.join(read.service_names())}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
