"""The catalogue: which skills are on offer, as they were pinned, and to whom.

A definition is pinned by digest the first time its upstream is seen; from then on a skill whose definition changed is
refused, and one that is new is hidden, until an operator pins anew. Callers are shown exactly the skills that a call
of theirs could get; one that they may not see and one that does not exist are the same to them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import anyio

from .arguments import Arguments, UnusableSchema, compiled
from .canonical import canonical, digest, digest_bytes
from .errors import ConfigurationError, Denied, InterposerError, MaskFault, Refusal, Unavailable, UnknownSkill
from .model import Call, Invocation, Json, JsonObject, Principal, Skill
from .ports import Clock, Masker, Pins, PolicyDecisionPoint, Upstream

PINNED = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
STALE_AFTER_S = 60.0
"""An upstream is asked again for its definitions when a call finds them older than this."""
RETRY_AFTER_S = 2.0
"""An upstream that could not be listed is not asked again sooner."""
PATIENCE_S = 5.0
UNSHOWABLE = "its definition cannot be masked"
MAX_JUDGED = 10_000
_NAME = re.compile(r"[A-Za-z0-9_.\-/]{1,128}")
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Offer:
    """A pinned skill, ready to be called and shown."""

    skill: Skill
    arguments: Arguments
    shown: JsonObject = field(repr=False)
    """The definition as callers see it: masked, its outputSchema true for masked results."""
    structured: Callable[[Json], bool] | None = field(default=None, repr=False)
    """Whether a structured result satisfies the outputSchema that callers see."""


@dataclass(slots=True)
class Shelf:
    """What one upstream offers now."""

    upstream: Upstream
    offers: dict[str, Offer] = field(default_factory=dict)
    """Upstream's own name -> offer."""
    withheld: dict[str, str] = field(default_factory=dict)
    """Name -> why a skill is not on offer: `changed`, `new`, or what is wrong with its definition."""
    listed_at: float = float("-inf")
    failed_at: float = float("-inf")
    fault: str = ""
    current: dict[str, JsonObject] = field(default_factory=dict)
    """The definitions as last listed, sound ones only."""
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Catalogue:
    """All shelves, and the names that callers use for what is on them."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        *,
        pins: Pins,
        masker: Masker,
        policy: Callable[[], PolicyDecisionPoint],
        clock: Clock,
        new_id: Callable[[str], str],
        on_echo: Callable[[str, str], None] = lambda upstream, place: None,
    ) -> None:
        self._on_echo = on_echo
        self._shelves = {upstream.name: Shelf(upstream) for upstream in upstreams}
        self._pins = pins
        self._masker = masker
        self._policy = policy
        self._clock = clock
        self._new_id = new_id
        self._exposed: dict[str, Offer | tuple[str, str]] = {}
        self._watchers: list[Callable[[], None]] = []
        self._judge: PolicyDecisionPoint | None = None
        self._judged: dict[tuple[Principal, str, str], bool] = {}
        self.generation = 0
        self.pinned: list[tuple[str, int]] = []
        """(upstream, number of skills) pinned on first sight since this was last emptied: for the record."""
        for upstream in upstreams:
            upstream.on_change(partial(self._outdate, self._shelves[upstream.name]))

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call this when the list may have changed; returns the way to stop it."""
        self._watchers.append(changed)
        return lambda: self._watchers.remove(changed)

    def announce(self) -> None:
        """The list may look different now: a shelf or the policy changed."""
        self.generation += 1
        for changed in list(self._watchers):
            changed()

    async def refresh(self) -> None:
        """List every upstream that was not listed lately, all at the same time. An upstream that is down keeps what
        it offered: its calls fail by themselves, and the others stay on offer. One that is slow is waited for only as
        long as there is nothing else to offer; callers are told when it is there."""
        patience = PATIENCE_S if any(shelf.offers for shelf in self._shelves.values()) else None
        with anyio.move_on_after(patience):
            async with anyio.create_task_group() as tasks:
                for shelf in self._shelves.values():
                    tasks.start_soon(self._freshen, shelf)

    def visible(self, principal: Principal) -> list[Offer]:
        """The skills of which a call by this principal could be allowed or asked for, in a stable order."""
        return [
            offer
            for offer in self._exposed.values()
            if isinstance(offer, Offer) and self._offered(principal, offer.skill)
        ]

    async def match(self, principal: Principal, call: Call) -> tuple[Invocation, Offer]:
        """The invocation that a call means. Raises `UnknownSkill`, or `Denied` for a definition that changed."""
        found = self._exposed.get(call.name)
        shelf = self._shelf_of(found)
        if shelf is None or self._clock.monotonic() - shelf.listed_at > STALE_AFTER_S:
            await (self.refresh() if shelf is None else self._freshen(shelf))
            found = self._exposed.get(call.name)
        if found is None:
            raise self._unknown(call.name)
        if isinstance(found, tuple):
            raise self._changed(principal, call.name, found)
        if not self._offered(principal, found.skill):
            await self.refresh()  # as for a skill that does not exist, which takes that long
            raise self._unknown(call.name)
        exact = canonical(call.arguments)
        invocation = Invocation(
            self._new_id("i"), call.session, principal, found.skill, call.arguments, exact, digest_bytes(exact)
        )
        return invocation, found

    def current(self, skill: Skill) -> bool:
        """Whether the skill still stands as it was when the call was matched."""
        shelf = self._shelves.get(skill.upstream)
        offer = shelf.offers.get(skill.name) if shelf else None
        return offer is not None and offer.skill.digest == skill.digest

    def upstream(self, skill: Skill) -> Upstream:
        return self._shelves[skill.upstream].upstream

    def offers(self) -> list[Offer]:
        return [offer for shelf in self._shelves.values() for offer in shelf.offers.values()]

    def withheld(self) -> list[tuple[str, str, str]]:
        """(upstream, name, why) of everything that is not on offer; an upstream that cannot be listed has no name."""
        rows = [(s.upstream.name, name, why) for s in self._shelves.values() for name, why in s.withheld.items()]
        return rows + [(s.upstream.name, "", s.fault) for s in self._shelves.values() if s.fault]

    async def pin(self, names: Iterable[str] = ()) -> dict[str, list[str]]:
        """Pin what the upstreams offer now (all, or those named); returns upstream -> ids whose pin changed."""
        await self.refresh()
        wanted = set(names)
        changed: dict[str, list[str]] = {}
        for name, shelf in self._shelves.items():
            if shelf.fault or (wanted and name not in wanted):
                continue
            before = self._pins.load(name) or {}
            changed[name] = sorted(
                f"{name}.{tool}"
                for tool in before.keys() | shelf.current.keys()
                if _pinned(before.get(tool)) != _pinned(shelf.current.get(tool))
            )
            self._pins.save(name, shelf.current)
            self._stock(shelf)
        self._expose()
        return changed

    def differences(self) -> list[JsonObject]:
        """What `pin` would change: one object per skill with `skill`, `was` and `now` (null where absent)."""
        rows = []
        for name, shelf in self._shelves.items():
            before = self._pins.load(name) or {}
            for tool in sorted(before.keys() | shelf.current.keys()):
                was, now = _facts(before.get(tool)), _facts(shelf.current.get(tool))
                if was != now:
                    rows.append({"skill": f"{name}.{tool}", "was": was, "now": now})
        return rows

    def _offered(self, principal: Principal, skill: Skill) -> bool:
        """`offers` of the policy in force, remembered for as long as that is the policy."""
        policy = self._policy()
        if policy is not self._judge or len(self._judged) > MAX_JUDGED:
            self._judge, self._judged = policy, {}
        known = self._judged.get((principal, skill.id, skill.digest))
        if known is None:
            known = self._judged[principal, skill.id, skill.digest] = policy.offers(principal, skill)
        return known

    def rework(self) -> None:
        """The policy changed: what is shown is masked anew, and callers are told that the list may differ."""
        for shelf in self._shelves.values():
            shelf.offers = {}
            with suppress(ConfigurationError):  # pins that cannot be read any more: nothing of it is offered
                self._stock(shelf)
        self._expose()
        self.announce()

    def _outdate(self, shelf: Shelf) -> None:
        shelf.listed_at = float("-inf")
        self.announce()

    def _shelf_of(self, found: Offer | tuple[str, str] | None) -> Shelf | None:
        return None if found is None else self._shelves[found.skill.upstream if isinstance(found, Offer) else found[0]]

    def _unknown(self, exposed: str) -> Refusal:
        """No such skill, as far as one can say while every upstream has been heard of."""
        silent = [shelf.upstream.name for shelf in self._shelves.values() if shelf.fault and not shelf.current]
        if not silent:
            return UnknownSkill(exposed)
        refusal = Unavailable(f"{', '.join(silent)}: not available, and nothing is known of what it offers")
        refusal.public = "The tool is not known, and an upstream service that may have it is not available."
        return refusal

    def _changed(self, principal: Principal, exposed: str, place: tuple[str, str]) -> Refusal:
        upstream, name = place
        skill = Skill(
            f"{upstream}.{name}", upstream, name, exposed, (self._pins.load(upstream) or {}).get(name, {}), ""
        )
        if not self._policy().offers(principal, skill):
            return self._unknown(exposed)
        return Denied(
            f"the definition of {skill.id} is not the pinned one",
            name="skill_changed",
            message="The definition of this tool changed since an operator pinned it.",
        )

    async def _freshen(self, shelf: Shelf) -> None:
        async with shelf.lock:
            now = self._clock.monotonic()
            if now - shelf.listed_at <= STALE_AFTER_S or now - shelf.failed_at <= RETRY_AFTER_S:
                return
            try:
                await self._list(shelf)
                shelf.failed_at = float("-inf")
            except (InterposerError, OSError) as fault:
                shelf.fault = str(fault)
                shelf.failed_at = self._clock.monotonic()

    async def _list(self, shelf: Shelf) -> None:
        listed = await shelf.upstream.skills()
        first = not shelf.current and not shelf.fault
        before = (shelf.offers, shelf.withheld)
        self._read(shelf, listed)
        if self._pins.load(shelf.upstream.name) is None:
            self._pins.save(shelf.upstream.name, shelf.current)
            self.pinned.append((shelf.upstream.name, len(shelf.current)))
        self._stock(shelf)
        self._expose()
        shelf.fault = ""
        shelf.listed_at = self._clock.monotonic()
        if not first and before != (shelf.offers, shelf.withheld):
            self.announce()

    def _read(self, shelf: Shelf, listed: list[JsonObject]) -> None:
        shelf.current = {}
        shelf.withheld = {}
        for definition in map(partial(self._clean, shelf.upstream.name), listed):
            name = definition.get("name")
            shown = name if isinstance(name, str) else repr(name)[:64]
            fault = unsound(definition) or ("listed twice" if shown in shelf.current else "")
            if fault:
                shelf.withheld[shown] = fault
            else:
                shelf.current[shown] = definition

    def _clean(self, upstream: str, definition: JsonObject) -> JsonObject:
        """Without our credentials, for pins are kept on disk; what cannot be searched is nothing that has a name."""
        with suppress(MaskFault):
            masked = self._masker.mask(definition, frozenset())
            if masked.counts:
                self._on_echo(upstream, "definition")
            return dict(masked.value)
        return {}

    def _stock(self, shelf: Shelf) -> None:
        """Put on offer what is as it was pinned; say of the rest why it is not."""
        pins = self._pins.load(shelf.upstream.name) or {}
        shelf.withheld = {
            name: why for name, why in shelf.withheld.items() if why not in ("changed", "new", UNSHOWABLE)
        }
        offers: dict[str, Offer] = {}
        for name, definition in shelf.current.items():
            pin = pins.get(name)
            if pin is None:
                shelf.withheld[name] = "new"
            elif _pinned(pin) != _pinned(definition):
                shelf.withheld[name] = "changed"
            else:
                old = shelf.offers.get(name)
                same = old is not None and old.skill.definition == definition
                try:
                    offers[name] = old if same and old else self._offer(shelf.upstream.name, definition)
                except (InterposerError, ValueError):
                    shelf.withheld[name] = UNSHOWABLE
        shelf.offers = offers

    def _offer(self, upstream: str, definition: JsonObject) -> Offer:
        name = definition["name"]
        skill = Skill(f"{upstream}.{name}", upstream, name, name, definition, digest(_facts(definition)))
        shown = dict(self._masker.mask(_drop_icons(definition), self._policy().obligations(skill.id).mask).value)
        structured = None
        if isinstance(shown.get("outputSchema"), dict):
            shown["outputSchema"] = self._masker.relax(shown["outputSchema"])
            structured = compiled(shown["outputSchema"]).is_valid
        return Offer(skill, Arguments(definition["inputSchema"]), shown, structured)

    def _expose(self) -> None:
        """Give every skill the name that callers use: its own, or `<upstream>__<name>` where names collide."""
        places: dict[str, list[Shelf]] = {}
        for shelf in self._shelves.values():
            for name in [*shelf.offers, *(n for n, why in shelf.withheld.items() if why == "changed")]:
                places.setdefault(name, []).append(shelf)
        exposed: dict[str, Offer | tuple[str, str]] = {}
        # What looks like another upstream's prefix gets its own, or it would take that one's name.
        reserved = tuple(f"{upstream}__" for upstream in self._shelves)
        for name, shelves in places.items():
            for shelf in shelves:
                alone = len(shelves) == 1 and not name.startswith(reserved)
                public = name if alone else f"{shelf.upstream.name}__{name}"
                exposed[public] = self._named(shelf, name, public)
        self._exposed = exposed

    def _named(self, shelf: Shelf, name: str, public: str) -> Offer | tuple[str, str]:
        offer = shelf.offers.get(name)
        if offer is None:
            return shelf.upstream.name, name
        if offer.skill.exposed == public:
            return offer
        renamed = replace(offer, skill=replace(offer.skill, exposed=public), shown={**offer.shown, "name": public})
        shelf.offers[name] = renamed
        return renamed


def _facts(definition: JsonObject | None) -> JsonObject | None:
    """The part of a definition that its pin covers."""
    if definition is None:
        return None
    return {key: definition[key] for key in PINNED if key in definition}


def _pinned(definition: JsonObject | None) -> str:
    return digest(_facts(definition)) if definition is not None else ""


def unsound(definition: JsonObject) -> str:
    """Why a definition cannot be offered, or nothing."""
    name = definition.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return "the name is not one that clients accept ([A-Za-z0-9_.-/], 1 to 128)"
    schema = definition.get("inputSchema")
    if not isinstance(schema, dict):
        return "no inputSchema"
    if schema.get("type", "object") != "object":
        return "the inputSchema is not for an object"
    if invisible(definition):
        return "invisible characters in the definition"
    if _bad_headers(schema):
        return "an x-mcp-header that is not a header name, or one that is there twice"
    try:
        compiled(schema)
        if isinstance(definition.get("outputSchema"), dict):
            compiled(definition["outputSchema"])
    except UnusableSchema:
        return "a schema that cannot be used (remote reference, bad pattern or type)"
    return ""


def invisible(value: Json) -> bool:
    """Whether any text in it holds code points that people do not see and models read (format, private use, tags)."""
    if isinstance(value, str):
        # Joiners and direction marks have honest uses in prose; tags, private use and bidi overrides have none here.
        return not value.isascii() and any(
            unicodedata.category(c) == "Co"
            or 0xE0000 <= ord(c) <= 0xE0FFF
            or "\u202a" <= c <= "\u202e"
            or "\u2066" <= c <= "\u2069"
            for c in value
        )
    if isinstance(value, Mapping):
        return any(invisible(k) or invisible(v) for k, v in value.items())
    return isinstance(value, list) and any(map(invisible, value))


def _bad_headers(schema: JsonObject) -> bool:
    """MCP 2026-07-28, transports: `x-mcp-header` must be a token and unique within the schema."""
    properties = schema.get("properties")
    named = [
        p["x-mcp-header"]
        for p in (properties.values() if isinstance(properties, dict) else ())
        if isinstance(p, dict) and "x-mcp-header" in p
    ]
    sound = [n.lower() for n in named if isinstance(n, str) and _HEADER.fullmatch(n)]
    return len(set(sound)) != len(named)


def _drop_icons(definition: JsonObject) -> JsonObject:
    """The definition without icons that are not pictures from https or data."""
    icons = definition.get("icons")
    if icons is None:
        return definition
    kept = [
        icon
        for icon in (icons if isinstance(icons, list) else [])
        if isinstance(icon, dict) and str(icon.get("src", "")).startswith(("https://", "data:image/"))
    ]
    return {**definition, "icons": kept}
