"""`interposer demo`: the whole story on real processes, and it says yes only if every step proved its claim."""

from __future__ import annotations

import json
import signal
import sys
import textwrap
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import click

from .proof import NotProved, prove
from .stage import Stage, StageFault
from .story import STEPS, Shown, Step

WIDTH = 79
UNAVAILABLE = 5
_CAVEAT = (
    "All of this ran under your own uid. It shows what an agent is given; it does not stop hostile code that runs with "
    "the broker's uid. For that the broker gets a uid of its own: see SECURITY.md, boundary levels."
)


@click.command(
    epilog="\b\nExamples:\n  interposer demo\n  interposer demo --json | tail -1\n",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per step, and a last one with the verdict.")
def demo(as_json: bool) -> None:
    """The whole story on real processes, in under a minute.

    Starts the example skill service behind its private key, the broker in front of it and a scripted agent, in a
    temporary directory. Shows allowed, masked, blocked, approved and denied calls, looks for the key in everything the
    agent received, replays the session and verifies the record. Exits 0 only if every step proved what it says.
    """
    show = Json() if as_json else Terminal() if sys.stdout.isatty() else Plain()
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, _end)
    began = time.monotonic()
    try:
        with Stage() as stage:
            show.opening(stage)
            with show.working("starting the service, the broker and the agent"):
                stage.open_broker()
                stage.open_agent()
            played = [_play(stage, number, step, show) for number, step in enumerate(STEPS, 1)]
            stage.close_agent()
            stage.close_broker()
            prove(stage.processes() == [], "no process is left behind")
    except (NotProved, StageFault) as fault:
        show.failure(str(fault), time.monotonic() - began)
        sys.exit(1 if isinstance(fault, NotProved) else UNAVAILABLE)
    except KeyboardInterrupt:
        show.failure("interrupted", time.monotonic() - began)
        sys.exit(130)
    show.verdict(sum(shown.skipped for shown in played), time.monotonic() - began)


def _play(stage: Stage, number: int, step: Step, show: Plain | Json) -> Shown:
    began = time.monotonic()
    try:
        with show.working(step.title):
            shown = step.play(stage)
    except (NotProved, StageFault):
        show.step(number, step, Shown(()), time.monotonic() - began, ok=False)
        raise
    show.step(number, step, shown, time.monotonic() - began, ok=True)
    return shown


def _end(number: int, frame: object) -> NoReturn:
    """A signal to end is a normal way out: the stage is cleared on it."""
    raise SystemExit(128 + number)


class Plain:
    """Text for pipes and files: no colour, no cursor."""

    def opening(self, stage: Stage) -> None:
        self.say("interposer demo: a skill service with a private key, the broker, and an agent")
        self.say(f"Real processes, in {stage.root} until the end of the story.", style="dim")

    def working(self, title: str) -> AbstractContextManager[object]:
        return nullcontext()

    def step(self, number: int, step: Step, shown: Shown, seconds: float, *, ok: bool) -> None:
        mark = "--" if shown.skipped else "ok" if ok else "NO"
        style = "yellow" if shown.skipped else "green" if ok else "red"
        self.say("")
        self.say(f"[{number}/{len(STEPS)}] {mark}  {step.title} ({seconds:.1f} s)", style=f"bold {style}")
        for line in shown.lines:
            self.say(line, indent="        " + " " * (len(line) - len(line.lstrip())))

    def failure(self, reason: str, seconds: float) -> None:
        self.say("")
        self.say(f"Not proved, after {seconds:.1f} s.", style="bold red")
        for line in reason.splitlines():
            self.say(line, indent="  ")

    def verdict(self, skipped: int, seconds: float) -> None:
        proved = f"{len(STEPS) - skipped} of {len(STEPS)} steps proved" if skipped else f"All {len(STEPS)} steps proved"
        self.say("")
        self.say(f"{proved} in {seconds:.1f} s; no process and no file is left.", style="bold green")
        self.say(_CAVEAT, style="dim")

    def say(self, text: str, *, indent: str = "", style: str = "") -> None:
        click.echo(_fit(text, indent))


class Terminal(Plain):
    """The same for people who watch: colour, and a sign of life while a step is on."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, markup=False, emoji=False)

    def working(self, title: str) -> AbstractContextManager[object]:
        return self._console.status(f"{title} …")

    def say(self, text: str, *, indent: str = "", style: str = "") -> None:
        self._console.print(_fit(text, indent), style=style or None, soft_wrap=True)


class Json:
    """One object per line for programs; the last one has the verdict."""

    def opening(self, stage: Stage) -> None:
        """Programs wait for the first step."""

    def working(self, title: str) -> AbstractContextManager[object]:
        return nullcontext()

    def step(self, number: int, step: Step, shown: Shown, seconds: float, *, ok: bool) -> None:
        facts = {"skipped": True, **shown.facts} if shown.skipped else shown.facts
        self._print(
            {"step": number, "name": step.name, "title": step.title, "ok": ok, "seconds": round(seconds, 3), **facts}
        )

    def failure(self, reason: str, seconds: float) -> None:
        self._print({"ok": False, "reason": reason, "seconds": round(seconds, 3)})

    def verdict(self, skipped: int, seconds: float) -> None:
        self._print({"ok": True, "steps": len(STEPS), "skipped": skipped, "seconds": round(seconds, 3)})

    def _print(self, one: dict[str, Any]) -> None:
        click.echo(json.dumps(one))


def _fit(text: str, indent: str) -> str:
    """The text in lines of an 80-column terminal."""
    body = text.strip()
    return textwrap.fill(body, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
