"""`kill -9` of the broker while a call waits for a human, while it is answered, and while it is carried out.

INTERPOSER_KILLS: how many in all (12 if absent; `make kills`: 200). INTERPOSER_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.fakes.agent import gone
from tests.promises.killing import EXECUTION, House, table, trials

KILLS = int(os.environ.get("INTERPOSER_KILLS", "12"))
AT_MOST_S = 90.0 if KILLS <= 12 else 7200.0


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_gated_call_has_one_effect_however_the_broker_dies(tmp_path: Path, era: str) -> None:
    """Whenever the broker dies between the question and the end of the execution: after a restart and a yes the effect
    happened exactly once, or the caller was told that nobody knows; a call that was not being carried out is never in
    doubt; every effect has an earlier durable intent, none has two, and the record verifies."""
    seed = int(os.environ.get("INTERPOSER_SEED", str(time.time_ns())))
    print(f"INTERPOSER_SEED={seed}")
    house = House(tmp_path)
    done = await trials(house, max(KILLS // 2, 1), era, random.Random(seed), time.monotonic() + AT_MOST_S)
    await gone(house.mark)
    effects = house.effects()
    stateful = sum(trial.stateful for trial in done)
    print(f"{era}: {len(done)} kills, {sum(trial.calls for trial in done)} calls, {stateful} with a sealed state")
    print(table(done, effects))

    assert stateful if era == "modern" else not stateful
    for trial in done:
        shown = (trial, effects[trial.text])
        assert trial.end in ("result", "in_doubt"), shown
        assert effects[trial.text] == 1 if trial.end == "result" else effects[trial.text] <= 1, shown
        assert trial.end == "result" or trial.phase == EXECUTION, shown
    intents = house.rows("intended")
    begun = {payload["arguments"]["text"]: at for at, _, payload in intents}
    assert len(begun) == len(intents)
    assert all(begun[line["text"]] <= line["at"] for line in house.lines())
    used = Counter(question for _, question, _ in house.rows("consumed"))
    assert set(used.values()) <= {1}
    assert house.verified()
