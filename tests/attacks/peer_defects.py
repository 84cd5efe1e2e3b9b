"""Defects that systems of this kind have had, in our own words, and what keeps each of them out of this one.

Each row has the tests that hold it, or the reason why it cannot arise here, or both. `python -m
tests.attacks.peer_defects` prints docs/explanation/peer-defects.md.
"""

from __future__ import annotations

from typing import NamedTuple

HERE = "attacks/test_peer_defects.py"


class Defect(NamedTuple):
    """One defect of somebody's."""

    what: str
    tests: tuple[str, ...] = ()
    """`path::name` beneath tests/."""
    why: str = ""
    """Why it cannot arise."""


def held(what: str, *tests: str, why: str = "") -> Defect:
    return Defect(what, tests, why)


ASKING = [
    held(
        "The same person is in two groups of approvers, and the approval never gets through",
        "test_desk.py::test_quorum_is_of_distinct_people",
        "test_ballot.py::test_minima_are_filled_exactly_where_some_seating_fills_them",
    ),
    held(
        "One person counts as two because they belong to two groups",
        "test_desk.py::test_quorum_is_of_distinct_people",
        "test_ballot.py::test_a_quorum_is_distinct_people_each_in_one_place",
    ),
    held(
        "Two approvals at the same moment: one is lost",
        "test_desk.py::test_two_approvers_at_once_both_count",
    ),
    held(
        "An approval after a rejection lets the call through",
        f"{HERE}::test_a_yes_after_a_no_changes_nothing",
        "test_desk.py::test_second_answer_is_late_and_recorded",
    ),
    held(
        "A call that is resumed while it is being carried out is carried out twice",
        f"{HERE}::test_a_call_repeated_while_it_is_carried_out_is_not_carried_out_twice",
        "test_errands.py::test_identical_call_waits_for_one_that_is_under_way",
    ),
    held(
        "Who comes back after the client's time-out finds nothing, or a failure that was stored for it",
        "test_desk.py::test_repeated_call_joins_its_question",
        "test_desk.py::test_caller_with_a_ticket_may_leave",
        "e2e/clients/test_gated_calls.py::test_a_client_with_its_defaults_gets_the_result_after_its_ticket",
    ),
    held(
        "A grant that was opened a minute before its end is good for much longer",
        "test_desk.py::test_grant_dies_with_its_question_time",
        "test_poll.py::test_a_grant_ends_on_time_whatever_the_wall_clock_says",
    ),
    held(
        "A revocation has no effect on the call that runs under the grant",
        "test_poll.py::test_a_revoked_grant_carries_nothing_more_and_cuts_what_is_under_way",
    ),
    held(
        "A window from 22:00 to 06:00 is closed at 02:00",
        "test_windows.py::test_windows_open_and_close_by_local_clocks",
        "test_windows.py::test_windows_agree_with_a_walk_through_the_week",
    ),
    held(
        "Only the beginning of the arguments is shown, and what destroys stands behind it",
        f"{HERE}::test_a_tail_beyond_1800_bytes_is_bound_and_shown",
        "console/test_pages.py::test_long_arguments_must_be_opened",
        "channels/test_notice.py::test_arguments_reasons_and_schemas_are_in_no_body",
    ),
    held(
        "Backticks or markup in the arguments rewrite the message that asks for approval",
        "channels/test_notice.py::test_foreign_text_is_text_in_slack",
        "console/test_browser.py::test_naughty_strings_stay_text",
        "cli/test_approvals.py::test_nothing_that_is_shown_can_write_to_the_terminal",
    ),
    held(
        "Two rules match one call, and only one of them asks",
        "policy/test_engine.py::test_strictest_wins_in_any_order",
        "policy/test_combined.py::test_terms_of_several_asks",
    ),
    held(
        "A rule demands approval, but this transport or client cannot wait, and the call goes through",
        "e2e/clients/test_gated_calls.py::test_a_client_with_its_defaults_gets_the_result_after_its_ticket",
        "test_desk.py::test_hold_that_ends_gives_a_ticket",
    ),
    held(
        "The approval is given at one replica while the caller waits at another",
        "e2e/test_daemon.py::test_one_record_has_one_daemon",
        why="A record has one broker, and questions live in the record; a second broker on it does not start.",
    ),
    held(
        "A pending call outlives its time to live",
        "test_desk.py::test_question_expires_under_its_waiters",
        "test_desk.py::test_background_loop_expires_by_itself",
        "contract/test_record_store.py::test_nothing_is_granted_at_or_after_the_deadline",
    ),
    held(
        "A time-out, a lost session or a transport error while approval is awaited lets the call through",
        "test_desk.py::test_question_expires_under_its_waiters",
        "test_desk.py::test_caller_that_leaves_takes_its_question_along",
        "test_desk.py::test_record_that_cannot_be_written_asks_nobody",
        "promises/test_approval_kills.py::test_a_gated_call_has_one_effect_however_the_broker_dies",
    ),
    held(
        "Who approves is read from the request, not from a verified identity",
        "test_desk.py::test_requester_cannot_answer",
        "test_ballot.py::test_the_callers_own_user_counts_only_where_policy_says_so",
        why="The administration socket knows its peer by the kernel, the console by its login; no method takes an "
        "identity as a parameter.",
    ),
    held(
        "The call is resumed with other arguments, or under another policy, schema or caller",
        "promises/test_approval_tamper.py::test_nothing_changes_between_a_yes_and_the_execution",
        "promises/test_approvals.py::test_approval_covers_exactly_one_call",
    ),
    held(
        "The caller's token has expired when the approved call is made",
        "e2e/test_oidc_provider.py::test_a_token_expires_while_its_call_is_held",
        "test_broker.py::test_token_that_ends_while_a_human_thinks_ends_the_wait",
        "test_errands.py::test_caller_on_the_deny_list_has_no_call_made",
    ),
    held(
        "A call that is cancelled while it waits for approval runs all the same",
        "test_broker.py::test_caller_that_leaves_while_a_human_thinks_is_withdrawn",
        "attacks/test_review.py::test_no_yes_follows_a_caller_that_left_while_it_was_asked",
    ),
]

MASKING = [
    held(
        "A masked value breaks the enum or format of the output schema, and the client fails",
        "test_broker.py::test_masked_result_that_breaks_its_schema_is_withheld",
    ),
    held(
        "A secret stands only in structured content, `_meta`, a resource, error data or a progress message",
        "attacks/test_hostile_upstream.py::test_hidden_secrets_leave_nowhere",
        "test_broker.py::test_progress_comes_back_masked",
    ),
    held(
        "A secret stands in a key, or as base64",
        "attacks/test_hostile_upstream.py::test_hidden_secrets_leave_nowhere",
        "masking/test_engine.py::test_value_is_found_wherever_it_hides",
    ),
    held(
        "A secret is cut in two by the chunks that it arrives in",
        "wire/test_framing.py::test_any_cutting_of_a_stream_gives_the_same_frames",
        why="Masking looks at whole messages; no part of one is passed on before it is complete.",
    ),
    held(
        "The masking engine raises, and the original is returned",
        "promises/test_faults.py::test_masker_that_breaks_withholds",
        "promises/test_faults.py::test_masker_that_overruns_withholds",
    ),
]

WIRE = [
    held(
        "A batch is an array that the checks do not look into",
        "test_session.py::test_batch_is_refused_in_every_other_revision",
        "wire/test_jsonrpc.py::test_the_elements_of_a_batch_are_judged_one_by_one",
    ),
    held(
        "Duplicate keys: one parser decides, another executes",
        "test_canonical.py::test_what_two_parsers_could_read_differently_is_refused",
    ),
    held(
        "A UTF-8 character is split across two reads",
        "wire/test_framing.py::test_any_cutting_of_a_stream_gives_the_same_frames",
    ),
    held(
        "A line of the upstream that cannot be parsed is dropped, and its caller hangs",
        "attacks/test_hostile_upstream.py::test_hostile_upstream_is_contained",
        "upstreams/test_mcp_stdio.py::test_a_deadline_leaves_the_outcome_in_doubt_and_tells_the_upstream",
    ),
    held(
        "Results of 2 MB and 20 MB break a buffer or the memory",
        f"{HERE}::test_large_results_pass_or_are_withheld",
        "upstreams/test_mcp_stdio.py::test_an_answer_beyond_the_calls_limit_is_withheld",
    ),
    held(
        "The upstream loses its session in mid-call, and the call fails for good or is sent twice",
        "upstreams/test_mcp_stdio.py::test_a_death_in_mid_call_is_in_doubt_and_the_next_call_finds_a_new_process",
        "upstreams/test_mcp_stdio.py::test_every_received_call_was_sent_once",
        why="An upstream is a process of ours; there is no session of a remote one to lose yet.",
    ),
    held(
        "A child forks, and what it started stays behind",
        "upstreams/test_child.py::test_grandchildren_end_with_the_child",
        "upstreams/test_child.py::test_kill_9_of_the_broker_leaves_no_grandchild",
    ),
    held(
        "Two callers share one stdio upstream and get each other's answers",
        "contract/test_upstream.py::test_calls_overlap_and_keep_their_answers",
        "promises/test_custody.py::test_callers_get_the_process_of_their_own_credential",
    ),
    held(
        "A denial ends the client's session",
        "e2e/test_sdk.py::test_every_combination_of_eras_works",
        "test_replies.py::test_refusal_is_an_error_result_with_one_text",
    ),
]

DECIDING = [
    held(
        "What a list shows is not what may be called",
        "promises/test_containment.py::test_invisible_skill_and_unknown_skill_look_the_same",
        "e2e/test_sdk.py::test_every_combination_of_eras_works",
    ),
    held(
        "An error while a flag or the decision is looked up counts as allowed",
        "promises/test_faults.py::test_decision_that_breaks_is_a_deny",
        "policy/test_engine.py::test_a_fault_of_the_engine_itself_ends_in_deny",
        why="There are no flags that switch enforcement.",
    ),
    held(
        "How dangerous a call is, or whose it is, is taken from the caller's arguments",
        "policy/test_engine.py::test_hints_are_what_was_pinned",
        "callers/test_everyone.py::test_with_a_token_the_token_has_the_word",
    ),
    held(
        "A token for another audience is taken",
        "identity/test_verify.py::test_hostile_token_is_refused_for_its_own_reason",
        "identity/test_corpus.py::test_row_is_decided_as_it_says",
    ),
    held(
        "A group that was taken from the claim between two calls still counts",
        "callers/test_issuers.py::test_groups_are_never_remembered_from_another_token",
    ),
    held(
        "A limit that is misspelt (`1O0`) reads as none",
        f"{HERE}::test_a_limit_that_is_no_number_is_refused",
    ),
    held(
        "A skill's description changes in mid-session, and it is called all the same",
        "test_catalogue.py::test_changed_definition_is_denied_until_it_is_pinned_anew",
        "test_broker.py::test_approved_call_is_judged_again",
    ),
]

RECORD = [
    held(
        "The audit queue is full, and records are dropped",
        "contract/test_record_store.py::test_many_at_once_are_all_chained",
        why="There is no queue that drops: a call waits until its row is durable.",
    ),
    held(
        "The disk is full, and calls go on without a record",
        "promises/test_faults.py::test_full_disk_stops_calls_until_there_is_room",
        "records/test_sqlite.py::test_a_full_disk_closes_the_record_until_there_is_room",
    ),
    held(
        "The place of the record cannot be written at start, and the broker starts without one",
        f"{HERE}::test_a_broker_without_a_record_does_not_start",
    ),
    held(
        "The chain begins anew at a restart or a rotation",
        "records/test_sqlite.py::test_the_chain_goes_on_where_the_last_run_ended",
        why="The record is not rotated.",
    ),
    held(
        "The hash is over something else than the bytes that are stored",
        "contract/test_record_store.py::test_what_was_appended_is_chained_with_its_payload",
    ),
]

PARTS = {
    "Asking a human": ASKING,
    "Masking": MASKING,
    "Messages and processes": WIRE,
    "Deciding": DECIDING,
    "The record": RECORD,
}

HEAD = """\
# Defects of others, and what keeps them out

Gateways, approval services and MCP proxies have had these defects; users found them, and reported them in public. Each
has a test here that fails if it appears, or a reason why it cannot. Tests are named by their place beneath `tests/`.
This page is generated by `python -m tests.attacks.peer_defects`.
"""


def document() -> str:
    """The page."""
    lines = [HEAD]
    for title, defects in PARTS.items():
        lines.append(f"## {title}\n")
        for defect in defects:
            lines.append(f"* **{defect.what}.**{' ' + defect.why if defect.why else ''}")
            lines += [f"  `{test}`" for test in defect.tests]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(document(), end="")
