"""How fast the masker is, on the payloads of the project's own benchmark where they are present.

    python benchmarks/masking.py

Each figure is the best of several runs, of the whole mask step (walk, search, rewrite). `cold` is the first message
that a process sees after `warm()`.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import util
from pathlib import Path
from typing import Any

from interposer.masking.engine import PROFILES, Engine

PAYLOADS = Path(__file__).parents[1] / "../shared/bench/payloads.py"


def best_s(engine: Engine, value: Any, repeats: int) -> float:
    """Seconds for one masking: the best of seven rounds."""
    rounds = []
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(repeats):
            engine.mask(value, PROFILES)
        rounds.append((time.perf_counter() - began) / repeats)
    return min(rounds)


def result(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": False}


def main() -> int:
    if not PAYLOADS.exists():
        print("the shared benchmark payloads are not here", file=sys.stderr)
        return 1
    spec = util.spec_from_file_location("payloads", PAYLOADS)
    if spec is None or spec.loader is None:
        return 1
    payloads = util.module_from_spec(spec)
    spec.loader.exec_module(payloads)
    text = payloads.make_text

    engine = Engine(monotonic=time.monotonic)
    began = time.perf_counter()
    engine.warm()
    rows = {"warm_ms": (time.perf_counter() - began) * 1e3}
    began = time.perf_counter()
    engine.mask(result(text(16384, 20, seed=1)), PROFILES)
    rows["cold_16k_ms"] = (time.perf_counter() - began) * 1e3
    clean = result(text(1 << 20, 0))
    engine.mask(clean, PROFILES)
    rows["clean_mb_per_s"] = 1.048576 / best_s(engine, clean, 5)
    rows["clean_10k_us"] = best_s(engine, result(text(10240, 0)), 200) * 1e6
    rows["clean_200_us"] = best_s(engine, result(text(200, 0)), 2000) * 1e6
    rows["email_200_us"] = best_s(engine, result(text(200, 1)), 2000) * 1e6
    rows["16k_20_items_us"] = best_s(engine, result(text(16384, 20)), 50) * 1e6
    rows["1mb_200_items_ms"] = best_s(engine, result(text(1 << 20, 200)), 5) * 1e3
    print(json.dumps({name: round(value, 1) for name, value in rows.items()}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
