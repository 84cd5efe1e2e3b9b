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
        (
            "promises/test_kill.py::test_killed_broker_forwards_nothing_unrecorded_and_nothing_twice",
            "promises/test_startup.py::test_a_killed_broker_leaves_nothing_running",
        ),
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
        "Answers, progress and definitions leave the broker masked, and so does all that enters its log and its "
        "record of events; an answer that cannot be masked or recorded is withheld, and its caller is told that "
        "the call took effect.",
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
        "An upstream's credential is given to that upstream's process only, and does not come back to agents, "
        "into the record or into the log in any of nine encodings.",
        (
            "promises/test_containment.py::test_echoed_credential_reaches_nobody",
            "promises/test_containment.py::test_credential_is_in_one_process_only",
            "promises/test_custody.py::test_credential_is_in_the_environment_of_its_process_only",
            "promises/test_custody.py::test_credential_may_come_from_elsewhere",
            "promises/test_custody.py::test_credential_is_in_no_error_and_no_repr",
            "test_canary.py::test_a_leak_is_found_however_it_is_written",
            "test_canary.py::test_a_test_that_prints_the_canary_has_failed",
        ),
    ),
    Promise(
        "credential-echo-alarm",
        "An upstream that sends its credential back raises an alarm in the record, wherever it stood: in an "
        "answer, on standard error, in a definition or in progress.",
        (
            "promises/test_containment.py::test_echoed_credential_reaches_nobody",
            "promises/test_custody.py::test_credential_that_comes_back_beside_answers_is_an_alarm",
        ),
    ),
    Promise(
        "credential-rotation",
        "A replaced credential counts within seconds, no call is lost or sent twice by it, and one that cannot be "
        "used changes nothing but raises an alarm.",
        ("promises/test_custody.py::test_rotated_credential_counts_without_restart",),
    ),
    Promise(
        "credential-by-caller",
        "Callers with different credentials share no process, and a caller for whom there is none is refused "
        "before an intent is written.",
        ("promises/test_custody.py::test_callers_get_the_process_of_their_own_credential",),
    ),
    Promise(
        "clean-children",
        "An upstream starts with its three streams, the variables that it was given, and nothing else of the broker's.",
        (
            "promises/test_custody.py::test_upstream_inherits_no_descriptor",
            "promises/test_startup.py::test_upstreams_get_what_they_are_given_and_nothing_else",
        ),
    ),
    Promise(
        "token-stays",
        "A caller's own token goes to the authenticator only: not upstream, not into arguments, not into the record.",
        (
            "promises/test_custody.py::test_callers_own_token_never_goes_upstream",
            "test_broker.py::test_callers_own_token_does_not_cross_as_an_argument",
            "test_broker.py::test_connections_token_does_not_cross_in_a_request_with_its_own",
            "test_broker.py::test_secret_in_the_place_of_a_name_is_not_on_record",
            "test_session_tokens.py::test_token_goes_nowhere_but_to_the_authenticator",
        ),
    ),
    Promise(
        "token-alone",
        "Who shows a token is judged by that token alone, at every call anew: a bad, expired or revoked one is "
        "nobody, and groups are those of the token in hand.",
        (
            "identity/test_corpus.py::test_row_is_decided_as_it_says",
            "callers/test_everyone.py::test_a_bad_token_is_nobody",
            "callers/test_everyone.py::test_revocation_counts_at_the_next_call",
            "test_session_tokens.py::test_bad_token_does_not_fall_back_to_the_kernels_word",
            "test_session_tokens.py::test_each_call_is_judged_by_its_own_token",
            "e2e/test_oidc_provider.py::test_who_logged_in_calls_by_their_groups",
        ),
    ),
    Promise(
        "token-while-held",
        "A call that waits for a human ends within a second when its caller's token expires, its key is gone or its "
        "subject is revoked, and no later yes executes it.",
        (
            "test_broker.py::test_token_that_ends_while_a_human_thinks_ends_the_wait",
            "test_broker.py::test_token_that_becomes_another_ones_is_not_theirs_to_use",
            "test_broker.py::test_token_that_ends_while_the_skill_is_looked_up_executes_nothing",
            "e2e/test_oidc_provider.py::test_a_token_expires_while_its_call_is_held",
        ),
    ),
    Promise(
        "issuer-keys",
        "Keys come from where the configuration says and from nowhere that a token names; they are believed for at "
        "most five minutes since they were fetched, and then nothing is granted.",
        (
            "callers/test_jwks.py::test_keys_are_believed_for_as_long_as_configured",
            "callers/test_jwks.py::test_between_fetches_lies_a_cool_down",
            "callers/test_jwks.py::test_a_bad_answer_leaves_the_old_keys_standing_until_their_time_is_over",
            "e2e/test_oidc_provider.py::test_keys_are_rotated_and_removed_in_mid_session",
            "e2e/test_oidc_provider.py::test_without_the_provider_keys_are_believed_for_their_time",
        ),
    ),
    Promise(
        "closed-process",
        "Nobody but root reads the broker's memory, environment or descriptors, traces it or finds a core file, also "
        "not who opened its memory before its first instruction.",
        (
            "promises/test_startup.py::test_memory_that_was_opened_before_the_hardening_holds_no_credential",
            "promises/test_startup.py::test_the_broker_itself_has_the_credential",
            "boundary/test_hardening.py::test_another_process_of_the_same_uid_gets_nothing",
            "boundary/test_hardening.py::test_there_is_no_core_file",
            "boundary/test_hardening.py::test_a_traced_broker_does_not_start",
        ),
    ),
    Promise(
        "own-code-only",
        "The broker's interpreter is isolated: nothing that its environment or working directory names is loaded.",
        (
            "boundary/test_launch.py::test_the_broker_runs_isolated_however_it_is_started",
            "boundary/test_launch.py::test_nothing_that_the_environment_names_runs_in_the_broker",
            "boundary/test_launch.py::test_libraries_for_every_program_are_not_for_the_broker",
        ),
    ),
    Promise(
        "firm-footing",
        "The broker does not start (exit code 78) while another user could change its configuration, policy, deny "
        "list, credentials, record, code or interpreter, or a folder on the way to them.",
        (
            "promises/test_startup.py::test_a_broker_on_writable_files_does_not_start",
            "boundary/test_footing.py::test_a_place_that_others_can_change_is_refused",
            "boundary/test_footing.py::test_a_policy_that_others_can_write_is_not_taken",
        ),
    ),
    Promise(
        "sandbox",
        "L2: an agent under `interposer run` cannot read, write, trace or signal the broker and its upstreams, open "
        "its record, key or credentials, change its policy or code, or answer its own questions.",
        (
            "cli/test_run.py::test_nothing_of_the_brokers_is_within_reach",
            "cli/test_run.py::test_the_agent_cannot_answer_its_own_question",
            "cli/test_run.py::test_what_the_agent_could_rewrite_refuses_the_run",
            "cli/test_run.py::test_a_weaker_kernel_refuses_unless_that_is_accepted",
            "boundary/test_sandbox.py::test_a_process_outside_is_out_of_reach",
            "boundary/experiments/test_levels.py::test_at_l2_a_thief_in_the_sandbox_gets_nothing",
        ),
    ),
    Promise(
        "user-boundary",
        "L4: with the broker under a uid of its own, an agent in the group of its socket and a stranger read nothing "
        "and change nothing.",
        (
            "boundary/experiments/test_levels.py::test_at_l4_an_agent_and_a_stranger_get_nothing",
            "deploy/test_systemd.py::test_the_broker_works_under_what_the_unit_forbids",
            "deploy/test_container.py::test_the_containers_boundary_holds",
        ),
    ),
    Promise(
        "level-proven",
        "The boundary level that `interposer doctor` prints is the one that its own attacks proved.",
        (
            "boundary/test_selfattack.py::test_a_level_is_proven_by_attacks_that_got_nothing",
            "boundary/experiments/test_levels.py::test_at_l1_a_thief_of_the_same_user_gets_the_credential_and_the_decision",
            "boundary/experiments/test_levels.py::test_doctor_says_l1_of_a_broker_with_the_agents_uid",
            "boundary/experiments/test_levels.py::test_doctor_says_l2_of_an_agent_in_the_sandbox",
            "boundary/experiments/test_levels.py::test_doctor_says_l4_of_a_broker_with_its_own_uid",
            "cli/test_doctor.py::test_who_answers_in_the_brokers_place_is_not_believed",
            "cli/test_doctor.py::test_a_claim_is_not_proven_by_a_broker_of_doctors_own",
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
        "approval-survives",
        "From its ticket on, a pending approval outlives the client's time-out, its disconnect and `kill -9` of the "
        "broker; afterwards its call has had one effect, or none, or is told to its caller as in doubt, whichever kind "
        "of client made it.",
        (
            "promises/test_approval_kills.py::test_a_gated_call_has_one_effect_however_the_broker_dies",
            "test_pending.py::test_each_way_leads_to_the_same_single_execution",
            "test_pending.py::test_answer_that_was_lost_is_told_again_and_not_made_again",
            "test_keeping.py::test_answer_that_its_caller_missed_is_told_to_the_repeated_call",
        ),
    ),
    Promise(
        "approval-unchanged",
        "Nothing that changes between a yes and the execution (arguments, skill definition, policy, principal, "
        "what a client brings back) is executed under it, and any number of identical retries execute it once.",
        (
            "promises/test_approval_tamper.py::test_nothing_changes_between_a_yes_and_the_execution",
            "promises/test_approval_tamper.py::test_the_unchanged_call_is_executed",
            "promises/test_approval_tamper.py::test_a_thousand_concurrent_retries_execute_once",
            "test_keeping.py::test_a_thousand_identical_retries_of_a_granted_call_make_it_once",
            "test_pending.py::test_no_edited_state_executes_anything",
            "test_pending.py::test_state_is_good_for_its_own_call_only",
            "test_pending.py::test_state_of_another_principal_is_refused",
        ),
    ),
    Promise(
        "approvers",
        "Only distinct people answer, so many of each group as the rule says, in its hours, and never the "
        "requester or a machine; one no ends the question; what a client says that its user answered counts only "
        "where policy says so.",
        (
            "test_ballot.py::test_a_quorum_is_distinct_people_each_in_one_place",
            "test_ballot.py::test_minima_are_filled_exactly_where_some_seating_fills_them",
            "test_ballot.py::test_the_requester_never_answers_whatever_they_are_called",
            "test_ballot.py::test_a_workload_never_answers",
            "test_ballot.py::test_outside_of_its_hours_no_yes_counts",
            "test_ballot.py::test_one_no_ends_it_whatever_came_before",
            "test_ballot.py::test_the_callers_own_user_counts_only_where_policy_says_so",
            "test_poll.py::test_a_yes_is_not_used_outside_of_its_hours",
        ),
    ),
    Promise(
        "standing-grants",
        "A yes to more than one call stays within what policy allows, ends in time, carries nothing that differs "
        "from what was agreed to, and dies with the policy; taking it back stops the next use and cuts what is "
        "under way.",
        (
            "test_grants.py::test_more_than_the_cap_is_refused",
            "test_grants.py::test_a_grant_carries_nothing_else",
            "test_poll.py::test_many_calls_at_once_use_a_grant_no_more_often_than_agreed",
            "test_poll.py::test_a_grant_ends_on_time_whatever_the_wall_clock_says",
            "test_poll.py::test_a_revoked_grant_carries_nothing_more_and_cuts_what_is_under_way",
            "records/test_evidence.py::test_an_edited_grant_carries_nothing",
            "records/test_evidence.py::test_a_grant_that_nobody_gave_carries_nothing",
        ),
    ),
    Promise(
        "break-glass-is-loud",
        "One person overrides a rule only if the configuration names them, with a reason, never for their own "
        "call, and it stands in the record as that and as an alarm.",
        (
            "test_ballot.py::test_breaking_glass_needs_the_right_a_reason_and_another_person",
            "test_poll.py::test_breaking_glass_grants_alone_and_loudly",
        ),
    ),
    Promise(
        "approvers-see-the-call",
        "An approver is shown the exact call, escaped, and answers the version that was shown; destructive or "
        "long calls cannot be approved before they were open for as long as they take to read.",
        (
            "console/test_pages.py::test_a_vote_is_about_the_version_that_was_seen",
            "console/test_pages.py::test_nobody_approves_what_they_were_never_shown",
            "console/test_pages.py::test_destructive_calls_need_their_reading_time",
            "console/test_pages.py::test_long_arguments_must_be_opened",
            "console/test_browser.py::test_naughty_strings_stay_text",
        ),
    ),
    Promise(
        "console-closed",
        "The console answers nobody who is not logged in, no other host and no form from elsewhere; nothing "
        "changes on a GET, a printed address works once, and a login ends with its token and with the deny list.",
        (
            "console/test_gate.py::test_every_answer_carries_the_strict_headers",
            "console/test_gate.py::test_other_hosts_are_not_answered",
            "console/test_gate.py::test_forms_from_elsewhere_do_nothing",
            "console/test_gate.py::test_no_address_changes_anything",
            "console/test_logins.py::test_a_token_logs_in_once",
            "console/test_oidc.py::test_a_login_ends_with_its_token_and_with_the_deny_list",
        ),
    ),
    Promise(
        "notices-tell-nothing",
        "What is sent to webhooks and command hooks holds no arguments and approves nothing; a delivery is "
        "signed, tried again until it is taken or given up, and its end is recorded.",
        (
            "channels/test_notice.py::test_arguments_reasons_and_schemas_are_in_no_body",
            "channels/test_notice.py::test_slack_body_is_blocks_with_a_link_and_no_button",
            "channels/test_webhook.py::test_delivery_is_signed_over_time_and_body",
            "channels/test_sender.py::test_failing_receiver_is_told_again_further_and_further_apart",
        ),
    ),
    Promise(
        "approvers-not-flooded",
        "Identical calls share one question; what one session and one caller can put to people is bounded.",
        (
            "test_poll.py::test_a_flood_of_a_thousand_questions_shows_twenty",
            "test_poll.py::test_one_caller_cannot_flood_its_approvers",
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
        "An upstream can answer its calls once and nothing more: noise, foreign ids, requests and floods do not "
        "reach agents, and no call outlives its deadline.",
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
