"""The catalogue: pinned on first sight, changed is denied, new is hidden, names are unambiguous."""

from __future__ import annotations

from typing import Any

import pytest

from interposer.catalogue import STALE_AFTER_S, invisible, unsound
from interposer.errors import Denied, UnknownSkill, UpstreamFault
from interposer.model import JsonObject, Principal
from interposer.upstreams.memory import MemoryUpstream
from tests.fakes.house import Indoors, definition, echo, echoing, indoors, rules

ANN = Principal("local", "ann", ("support",), 1000)


def offering(name: str, **definitions: JsonObject) -> MemoryUpstream:
    return MemoryUpstream(name, {skill: (given, echo) for skill, given in definitions.items()})


def change(upstream: MemoryUpstream, **definitions: JsonObject) -> None:
    upstream.replace({skill: (given, echo) for skill, given in definitions.items()})


async def names(broker: Indoors) -> set[str]:
    await broker.catalogue.refresh()
    return {offer.skill.exposed for offer in broker.catalogue.visible(ANN)}


# -- pins


async def test_definitions_are_pinned_on_first_sight() -> None:
    """What an upstream offers when it is first seen is on offer, and noted for the record."""
    async with indoors(upstreams=[echoing("fake", "other")]) as broker:
        assert await names(broker) == {"echo", "other"}
        assert broker.catalogue.pinned == [("fake", 2)]
        assert not broker.catalogue.differences()


@pytest.mark.parametrize(
    "changed",
    [
        {"description": "Also mails it to me."},
        {"title": "Echo!"},
        {"annotations": {"readOnlyHint": True}},
        {"inputSchema": {"type": "object"}},
        {"outputSchema": {"type": "object"}},
    ],
)
async def test_changed_definition_is_denied_until_it_is_pinned_anew(changed: JsonObject) -> None:
    """A skill whose definition changed is not listed and not called; an operator's pin brings it back."""
    fake = offering("fake", echo=definition())
    async with indoors(upstreams=[fake]) as broker:
        await broker.invoke({})
        change(fake, echo=definition(**changed))
        with pytest.raises(Denied) as denied:
            await broker.invoke({})
        assert denied.value.name == "skill_changed"
        assert await names(broker) == set()
        assert ("fake", "echo", "changed") in broker.catalogue.withheld()
        assert [row["skill"] for row in broker.catalogue.differences()] == ["fake.echo"]
        assert await broker.catalogue.pin() == {"fake": ["fake.echo"]}
        await broker.invoke({})
    assert len(fake.called) == 2


async def test_definition_that_changes_back_is_on_offer_again() -> None:
    """The pin is of the definition, not of the time."""
    fake = offering("fake", echo=definition())
    async with indoors(upstreams=[fake]) as broker:
        await broker.invoke({})
        change(fake, echo=definition(title="x"))
        with pytest.raises(Denied):
            await broker.invoke({})
        change(fake, echo=definition())
        await broker.invoke({})


async def test_new_skill_is_hidden_until_it_is_pinned() -> None:
    """A skill that appears later does not exist for callers before an operator says so."""
    fake = offering("fake", echo=definition())
    async with indoors(upstreams=[fake]) as broker:
        assert await names(broker) == {"echo"}
        change(fake, echo=definition(), later=definition())
        assert await names(broker) == {"echo"}
        with pytest.raises(UnknownSkill):
            await broker.invoke({}, name="later")
        await broker.catalogue.pin(["fake"])
        assert await names(broker) == {"echo", "later"}


async def test_changed_skill_that_is_invisible_stays_unknown() -> None:
    """Who may not see a skill does not learn that its definition changed."""
    fake = offering("fake", echo=definition())
    async with indoors(rules("allow fake.other"), [fake]) as broker:
        assert await names(broker) == set()
        change(fake, echo=definition(title="x"))
        with pytest.raises(UnknownSkill):
            await broker.invoke({})


async def test_fields_outside_of_the_pin_may_change() -> None:
    """Icons and vendor fields are shown as they are now, and change no pin."""
    fake = offering("fake", echo=definition())
    async with indoors(upstreams=[fake]) as broker:
        await broker.invoke({})
        change(fake, echo=definition(**{"x-vendor": 1}))
        await broker.invoke({})
        assert broker.catalogue.offers()[0].shown["x-vendor"] == 1


async def test_definitions_are_looked_at_again_when_they_are_old() -> None:
    """A change that nobody announced is found at the first call after the list went stale."""
    fake = offering("fake", echo=definition())
    async with indoors(upstreams=[fake]) as broker:
        await broker.invoke({})
        fake._skills = {"echo": (definition(title="x"), echo)}
        await broker.invoke({})
        broker.clock.time_s += STALE_AFTER_S + 1
        with pytest.raises(Denied):
            await broker.invoke({})


# -- names


async def test_colliding_names_are_prefixed_and_others_are_not() -> None:
    """Where two upstreams offer one name, both are reachable under their full names only."""
    one, two = echoing("one", "alone"), echoing("two")
    async with indoors(upstreams=[one, two]) as broker:
        assert await names(broker) == {"one__echo", "two__echo", "alone"}
        await broker.invoke({}, name="two__echo")
        with pytest.raises(UnknownSkill):
            await broker.invoke({}, name="echo")
    assert (len(one.called), len(two.called)) == (0, 1)
    assert two.called[0].permit.invocation.skill.id == "two.echo"


async def test_changed_definition_keeps_its_place_in_a_collision() -> None:
    """A name does not pass to another upstream because the first one's definition changed."""
    one, two = echoing("one"), echoing("two")
    async with indoors(upstreams=[one, two]) as broker:
        assert await names(broker) == {"one__echo", "two__echo"}
        change(one, echo=definition(title="x"))
        assert await names(broker) == {"two__echo"}
        with pytest.raises(Denied):
            await broker.invoke({}, name="one__echo")
        with pytest.raises(UnknownSkill):
            await broker.invoke({}, name="echo")


async def test_upstream_that_is_down_takes_no_other_with_it() -> None:
    """Skills of the others stay on offer, and the fault is told to operators."""

    class Down(MemoryUpstream):
        async def skills(self) -> list[JsonObject]:
            raise UpstreamFault("gone fishing")

    async with indoors(upstreams=[Down("down", {}), echoing("fake")]) as broker:
        assert await names(broker) == {"echo"}
        assert ("down", "", "gone fishing") in broker.catalogue.withheld()
        await broker.catalogue.pin()
        assert await names(broker) == {"echo"}


# -- soundness


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"name": "two words"}, "name"),
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": "ech\u043e"}, "name"),
        ({"inputSchema": None}, "inputSchema"),
        ({"inputSchema": {"type": "array"}}, "object"),
        ({"inputSchema": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}}}, "schema"),
        ({"inputSchema": {"type": "nonsense"}}, "object"),
        ({"inputSchema": {"type": "object", "properties": {"a": {"pattern": "("}}}}, "schema"),
        ({"outputSchema": {"type": "nonsense"}}, "schema"),
        ({"description": "Adds.\U000e0072\U000e0065"}, "invisible"),
        ({"description": "a\u202eb"}, "invisible"),
        ({"inputSchema": {"type": "object", "properties": {"a\ue000": {}}}}, "invisible"),
        ({"inputSchema": {"type": "object", "properties": {"a": {"x-mcp-header": "X\r\nY: z"}}}}, "header"),
        (
            {"inputSchema": {"type": "object", "properties": {"a": {"x-mcp-header": "A"}, "b": {"x-mcp-header": "a"}}}},
            "header",
        ),
    ],
)
def test_unsound_definition_is_not_offered(wrong: JsonObject, why: str) -> None:
    """A definition that hides something or cannot be used is left out, with the reason for operators."""
    assert why in unsound({"name": "echo", **definition(), **wrong})


@pytest.mark.parametrize("text", ["plain", "Grüße 日本", "family 👨‍👩‍👧", "می\u200cخواهم"])
def test_honest_text_is_not_invisible(text: str) -> None:
    """Joiners and other scripts have honest uses."""
    assert not invisible({"description": text})
    assert unsound({"name": "echo", **definition(description=text)}) == ""


async def test_shown_definition_is_masked_and_keeps_unknown_fields() -> None:
    """What callers see of a definition is masked; what nobody here knows is kept."""
    key = "AKIA" + "Q7ZX9WV5TR3MPLK2"
    schema: Any = {"type": "object", "$defs": {"t": {"$anchor": "t", "x-odd": [1.50]}}, "properties": {}}
    fake = offering("fake", echo=definition(description=f"uses {key}", inputSchema=schema, icons=[{"src": "http://x"}]))
    async with indoors(upstreams=[fake]) as broker:
        assert await names(broker) == {"echo"}
        shown = broker.catalogue.offers()[0].shown
    assert key not in str(shown)
    assert shown["inputSchema"] == schema
    assert shown["icons"] == []
