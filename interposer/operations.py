"""What operators may ask of a broker that stands, beside answering questions: its policy, its skills, how it is."""

from __future__ import annotations

import os
from collections.abc import Callable

from . import __version__, parts
from .admin import Administration, Login
from .callers.everyone import Everyone
from .catalogue import Catalogue
from .desk import OPERATOR, Desk
from .journal import Journal
from .masking.engine import PROFILES
from .model import JsonObject, Kind, Principal
from .ports import Clock, Masker
from .settings import Settings
from .standing import StandingPolicy
from .state import State


class Operations:
    """The orders and reports behind the administration socket."""

    def __init__(
        self,
        chosen: Settings,
        state: State,
        *,
        policy: StandingPolicy,
        catalogue: Catalogue,
        journal: Journal,
        masker: Masker,
        callers: Everyone,
        sessions: Callable[[], int],
    ) -> None:
        self._chosen = chosen
        self._state = state
        self._policy = policy
        self._catalogue = catalogue
        self._journal = journal
        self._masker = masker
        self._callers = callers
        self._sessions = sessions
        self._link: Callable[[str], str | None] | None = None

    def administration(
        self, desk: Desk, clock: Clock, *, login: Login | None, link: Callable[[str], str | None]
    ) -> Administration:
        """The methods of the administration socket. `login` and `link` are the console's, where there is one."""
        self._link = link
        return Administration(
            desk,
            clock,
            link=link,
            **({"login": login} if login else {}),
            reload=self._reload,
            skills=self._skills,
            pin=self._pin,
            status=self._status,
            targets=self._targets,
        )

    def operator(self, uid: int | None) -> Principal:
        """Who a kernel identity is among the operators."""
        for person in self._chosen.config.operators:
            if person.uid == uid:
                return Principal(OPERATOR, person.subject, tuple(person.groups), uid)
        return Principal(OPERATOR, f"uid:{uid}", (), uid)

    async def _reload(self) -> JsonObject:
        changed = await self._policy.reload()
        return {"changed": changed, "policy": self._policy.current.digest, "source": self._policy.source}

    async def _skills(self) -> JsonObject:
        await self._catalogue.refresh()
        return {
            "skills": [
                {
                    "skill": offer.skill.id,
                    "name": offer.skill.exposed,
                    "digest": offer.skill.digest,
                    "description": offer.shown.get("description", ""),
                    "annotations": offer.skill.annotations,
                }
                for offer in self._catalogue.offers()
            ],
            "withheld": [
                {"upstream": upstream, "name": name, "why": why} for upstream, name, why in self._catalogue.withheld()
            ],
            "differences": self._masker.mask(self._catalogue.differences(), PROFILES).value,
        }

    async def _pin(self, params: JsonObject) -> JsonObject:
        names = params.get("upstreams") or []
        changed = await self._catalogue.pin([str(name) for name in names] if isinstance(names, list) else [])
        await self._journal.note(Kind.SKILLS_PINNED)
        self._catalogue.announce()
        return {"changed": changed}

    async def _status(self) -> JsonObject:
        return {
            "pid": os.getpid(),
            "keeper": os.getppid(),
            "version": __version__,
            "policy": self._policy.current.digest,
            "policy_source": self._policy.source,
            "record": str(self._state.folder / "record.db"),
            "healthy": self._state.store.healthy(),
            "console": self._link("") if self._link else None,
            **self._callers.status(),
            "sessions": self._sessions(),
        }

    async def _targets(self) -> JsonObject:
        return parts.targets(self._chosen, self._state.folder)
