"""What an approver fills in, read strictly: a standing grant, other arguments. The desk judges whether policy allows
it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from interposer.canonical import Malformed, canonical, encode, parse
from interposer.desk import Proposal
from interposer.model import Question
from interposer.terms import GrantSpec

FIELDS = 16
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0}
_LONGEST = 9
"""Characters of a number."""

Form = Mapping[str, str]


class BadForm(ValueError):
    """What was filled in cannot be used; the text says what to correct and echoes nothing."""


def read_form(body: bytes) -> Form:
    """An urlencoded form (HTML, "application/x-www-form-urlencoded"). Raises `BadForm`."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=FIELDS,
        )
    except ValueError:
        raise BadForm("That is not a form of this console.") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadForm("A field of the form is there twice.")
    return found


def proposal_of(form: Form, question: Question) -> Proposal | None:
    """What the form puts on the table; None: what is there. Raises `BadForm`."""
    scope = form.get("scope", "")
    amended = arguments_of(form, question) if "arguments" in form else question.amended
    if scope == "grant":
        return Proposal(amended, spec_of(form, question))
    if scope == "once":
        return Proposal(amended, None)
    if scope == "proposed":
        return None
    raise BadForm("The form does not say what is approved.")


def arguments_of(form: Form, question: Question) -> bytes:
    """The arguments that the form puts in place of the caller's; empty for the caller's own. Raises `BadForm`."""
    value = _json(form.get("arguments", ""), "The arguments")
    if not isinstance(value, dict):
        raise BadForm("The arguments are not a JSON object.")
    found = canonical(value)
    return b"" if found == question.canonical else found


def spec_of(form: Form, question: Question) -> GrantSpec:
    """The standing grant. Raises `BadForm`."""
    if question.terms.cap is None:
        raise BadForm("Policy allows this call to be approved once only.")
    number, unit = form.get("for", ""), _UNITS.get(form.get("unit", ""))
    if unit is None or not _is_number(number):
        raise BadForm("Say for how long: a whole number of minutes, hours or days.")
    uses = form.get("uses", "").strip()
    if uses and not _is_number(uses):
        raise BadForm("Say for how many calls: a whole number.")
    schema = b""
    if form.get("matching") == "yes":
        schema = canonical(_json(form.get("schema", ""), "The schema"))
    return GrantSpec(int(number) * unit, int(uses) if uses else None, form.get("session") == "yes", schema)


def suggested(raw: bytes) -> bytes:
    """A schema that exactly these arguments match: something to widen where it is meant to be wider."""
    found = parse(raw)
    if not isinstance(found, dict):
        return b"{}"
    return encode(
        {
            "type": "object",
            "properties": {name: {"const": value} for name, value in found.items()},
            "required": sorted(found),
            "additionalProperties": False,
        }
    )


def _json(text: str, what: str) -> object:
    try:
        value: object = parse(text.encode())
        canonical(value)
    except Malformed as wrong:
        raise BadForm(f"{what}: {wrong}.") from None
    except UnicodeEncodeError:
        raise BadForm(f"{what}: not text.") from None
    return value


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST and int(text) > 0
