"""What is promised, each claim with the tests that hold it. The table in SECURITY.md is made from these rows, and
`test_manifest.py` fails for a claim without a test, a test without a claim, and a table that is not this one.

    python -m tests.promises.manifest     prints the table
"""

from __future__ import annotations

from typing import NamedTuple


class Promise(NamedTuple):
    id: str
    claim: str
    """One sentence, as it stands in SECURITY.md."""
    tests: tuple[str, ...]
    """`path::name`, the path relative to `tests/`."""


PROMISES = (
    Promise(
        "intent-first",
        "No byte of a call reaches an upstream before its intent is durable in the record.",
        (
            "promises/test_kill.py::test_killed_broker_forwards_nothing_unrecorded_and_nothing_twice",
            "promises/test_faults.py::test_intent_that_cannot_be_written_stops_the_call",
            "promises/test_faults.py::test_full_disk_stops_calls_until_there_is_room",
        ),
    ),
    Promise(
        "at-most-once",
        "A call is sent at most once, and never again after a crash; a call whose end is not known is recorded as in "
        "doubt.",
        ("promises/test_kill.py::test_killed_broker_forwards_nothing_unrecorded_and_nothing_twice",),
    ),
    Promise(
        "no-orphans",
        "When the broker ends, `kill -9` included, no process of its upstreams is left.",
        ("promises/test_kill.py::test_killed_broker_forwards_nothing_unrecorded_and_nothing_twice",),
    ),
    Promise(
        "record-in-place",
        "When the live record is removed, replaced or cut, no further call is forwarded.",
        ("promises/test_faults.py::test_record_that_is_not_in_place_stops_every_call",),
    ),
    Promise(
        "faults-deny",
        "A fault in the decision, the policy file, the record or the broker itself ends in no: nothing is sent, and "
        "the caller is told nothing of the inside.",
        (
            "promises/test_faults.py::test_decision_that_breaks_is_a_deny",
            "promises/test_faults.py::test_fault_at_the_session_boundary_tells_nothing",
            "promises/test_faults.py::test_refusal_that_cannot_be_written_is_still_a_refusal",
            "promises/test_faults.py::test_policy_is_needed_to_start",
        ),
    ),
    Promise(
        "nothing-unmasked",
        "Answers, progress and definitions leave the broker masked, and so does all that enters its log and its record "
        "of events; an answer that cannot be masked or recorded is withheld, and its caller is told that the call took "
        "effect.",
        (
            "promises/test_faults.py::test_masker_that_breaks_withholds",
            "promises/test_faults.py::test_masker_that_overruns_withholds",
            "promises/test_faults.py::test_outcome_that_cannot_be_written_is_withheld",
            "promises/test_containment.py::test_question_to_a_human_is_masked_in_the_log",
            "attacks/test_hostile_upstream.py::test_hidden_secrets_leave_nowhere",
            "attacks/test_hostile_upstream.py::test_secrets_in_definitions_are_never_listed",
        ),
    ),
    Promise(
        "unknown-is-said",
        "When an upstream breaks in the middle of a call, the outcome is told as unknown, never as success and never "
        "as not executed.",
        ("promises/test_faults.py::test_upstream_that_breaks_leaves_the_outcome_unknown",),
    ),
    Promise(
        "credential-stays",
        "An upstream's credential is given to that upstream's process only, and does not come back to agents, into the "
        "record or into the log in any of nine encodings.",
        (
            "promises/test_containment.py::test_echoed_credential_reaches_nobody",
            "promises/test_containment.py::test_credential_is_in_one_process_only",
        ),
    ),
    Promise(
        "approval-exact",
        "An approval covers exactly the call that was shown: principal, skill definition, arguments and policy.",
        (
            "promises/test_approvals.py::test_approval_covers_exactly_one_call",
            "promises/test_approvals.py::test_executed_arguments_are_the_approved_bytes",
            "promises/test_approvals.py::test_requester_cannot_approve",
        ),
    ),
    Promise(
        "approval-once",
        "An approval is good for one execution before it expires, also when the broker is killed in between.",
        (
            "promises/test_approvals.py::test_unchanged_call_is_executed_once",
            "promises/test_approvals.py::test_expired_grant_is_worth_nothing",
            "promises/test_approvals.py::test_denied_call_is_not_executed_by_repeating_it",
            "promises/test_kill.py::test_question_survives_a_killed_broker",
            "promises/test_kill.py::test_grant_is_good_for_one_execution_however_the_broker_dies",
        ),
    ),
    Promise(
        "invisible-is-unknown",
        "A skill that a principal may not see and a skill that does not exist are told apart by nothing.",
        ("promises/test_containment.py::test_invisible_skill_and_unknown_skill_look_the_same",),
    ),
    Promise(
        "policy-of-now",
        "A reloaded policy decides the next call; a broken policy file leaves the old policy in force.",
        ("promises/test_containment.py::test_reloaded_policy_judges_the_next_call",),
    ),
    Promise(
        "hostile-agent",
        "Malformed, oversized or ambiguous messages from agents are refused, are never forwarded, and do not end the "
        "conversation.",
        (
            "attacks/test_hostile_frames.py::test_hostile_frame_is_answered_as_its_row_says",
            "attacks/test_hostile_frames.py::test_one_stdio_conversation_outlives_all_hostile_frames",
            "attacks/test_mutated_frames.py::test_damaged_frames_end_nothing_and_bypass_nothing",
            "attacks/test_hostile_frames.py::test_oversized_line_is_refused_in_bounded_memory",
        ),
    ),
    Promise(
        "hostile-upstream",
        "An upstream can answer its calls once and nothing more: noise, foreign ids, requests and floods do not reach "
        "agents, and no call outlives its deadline.",
        (
            "attacks/test_hostile_upstream.py::test_hostile_upstream_is_contained",
            "attacks/test_hostile_upstream.py::test_upstream_cannot_speak_for_the_broker",
            "attacks/test_hostile_upstream.py::test_progress_does_not_extend_the_deadline",
        ),
    ),
)


def table() -> str:
    """The promises as SECURITY.md shows them."""
    rows = [f"| `{promise.id}` | {promise.claim} |" for promise in PROMISES]
    return "\n".join(["| id | promise |", "|---|---|", *rows])


if __name__ == "__main__":
    print(table())
