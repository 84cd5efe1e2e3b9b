"""How long the shim takes from its start to the first byte at the broker, next to a bare interpreter.

Run it: `python benchmarks/shim.py [REPEATS]`. Prints medians in milliseconds; runs are interleaved.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHIM = ROOT / "interposer" / "shim.py"
ENTRY = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from interposer.shim import main; sys.exit(main())"


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = os.path.join(folder, "s")
        listener.bind(path)
        listener.listen()
        commands = {
            "python -I -S shim.py": [sys.executable, "-I", "-S", str(SHIM), path],
            "python -I -S, imported (what an entry point does)": [sys.executable, "-I", "-S", "-c", ENTRY, path],
            "python -m interposer.shim": [sys.executable, "-m", "interposer.shim", path],
        }
        times: dict[str, list[float]] = {"bare interpreter (-I -S -c pass)": [], **{name: [] for name in commands}}
        for _ in range(repeats):
            times["bare interpreter (-I -S -c pass)"].append(_bare())
            for name, command in commands.items():
                times[name].append(_first_byte(command, listener))
    for name, taken in times.items():
        print(f"{statistics.median(taken) * 1000:7.1f} ms  {name}  (best {min(taken) * 1000:.1f})")


def _bare() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    return time.perf_counter() - began


def _first_byte(command: list[str], listener: socket.socket) -> float:
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT) as shim:
        if shim.stdin is None:
            raise RuntimeError("no pipe to the shim")
        shim.stdin.write(b"x")
        shim.stdin.flush()
        peer, _ = listener.accept()
        with peer:
            peer.recv(1)
            taken = time.perf_counter() - began
            shim.stdin.close()
    return taken


if __name__ == "__main__":
    main()
