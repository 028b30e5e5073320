"""The edge cases of the contact-frequency rule, row by row, and the tests that prove each: one that goes is missed."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

ROWS: dict[str, tuple[str, ...]] = {
    "same person in two CRMs": (
        "storage/test_people_linking.py::test_same_address_in_two_sources_is_one_person_with_one_clock",
        "storage/test_people_same.py::test_both_sources_receive_the_same_date",
        "storage/test_people_linking.py::test_one_name_of_two_sources_in_a_shared_mailbox_waits_for_a_human",
        "storage/test_people_links.py::test_a_wrong_link_is_split_and_touches_follow_the_record_they_were_sent_from",
        "storage/test_people_links.py::test_a_split_record_takes_those_with_it_that_were_merged_into_it",
        "storage/test_people_at_random.py::test_whatever_happens_to_records_people_stay_consistent",
    ),
    "two people, one mailbox": (
        "storage/test_planning.py::test_of_two_people_behind_one_mailbox_one_is_asked_per_period",
        "core/test_frequency.py::test_a_shared_mailbox_waits_for_the_longest_period_that_applies",
        "storage/test_people_linking.py::test_differing_names_on_one_address_share_a_mailbox_and_are_not_linked",
        "storage/test_people_linking.py::test_same_name_on_one_address_is_a_duplicate_and_one_person",
        "storage/test_responses.py::test_an_answer_from_a_shared_mailbox_is_the_company_s",
    ),
    "case and dots": ("storage/test_people_linking.py::test_case_and_plus_tags_are_folded_and_dots_are_not",),
    "contacts merged in the CRM": (
        "storage/test_people_links.py::test_the_survivor_of_a_merge_inherits_all_touches",
        "storage/test_people_links.py::test_after_a_merge_the_latest_date_wins",
        "storage/test_people_links.py::test_a_pending_touch_for_each_becomes_one",
        "storage/test_people_links.py::test_a_merge_that_arrives_late_is_the_same_as_one_in_time",
        "storage/test_people_links.py::test_a_merge_told_before_the_winner_was_read_keeps_clocks_and_record",
        "storage/test_people_links.py::test_an_opt_out_of_either_survives_a_merge",
    ),
    "merge undone, or record restored": (
        "storage/test_people_links.py::test_a_merge_undone_gives_touches_back_to_their_records",
        "storage/test_people_links.py::test_after_an_undone_merge_quarantine_stays_at_its_strictest",
        "storage/test_people_links.py::test_a_record_deleted_and_restored_is_the_same_person",
        "storage/test_people_links.py::test_a_merge_undone_gives_touches_back_even_if_it_was_told_before_the_winner_was_read",
    ),
    "e-mail address changed": (
        "storage/test_people_changes.py::test_changed_address_keeps_the_clock_and_cancels_the_pending_invitation",
        "core/test_dispatch.py::test_what_changed_since_the_reservation_returns_the_quota_and_says_why",
    ),
    "contact deleted then re-created": (
        "storage/test_people_gone.py::test_who_is_deleted_and_recreated_under_a_new_id_keeps_the_clocks",
        "storage/test_people_gone.py::test_who_opted_out_and_comes_back_is_opted_out",
        "storage/test_people_gone.py::test_tombstones_hang_on_an_hmac_of_the_address_under_the_pepper",
    ),
    "clock skew": (
        "core/test_outside_asks.py::test_a_claim_more_than_five_minutes_ahead_is_clamped_and_flagged",
        "storage/test_people_asks.py::test_a_future_date_is_clamped_to_now_and_flagged",
        "jobs/test_apply_events.py::test_a_claim_from_the_future_is_not_believed",
    ),
    "two campaigns at the same second": (
        "jobs/test_plan_waves.py::test_of_two_campaigns_at_the_same_second_priority_wins_and_the_loser_is_told_the_rule",
        "jobs/test_plan_waves.py::test_of_equal_campaigns_the_earlier_one_goes_first",
        "jobs/test_plan_waves.py::test_many_planners_at_once_still_decide_by_priority",
        "storage/test_concurrency.py::test_fifty_threads_double_nobody_and_overrun_no_share_and_no_day",
        "storage/test_concurrency.py::test_four_processes_double_nobody_and_overrun_no_share_and_no_day",
        "storage/test_reservation.py::test_the_recheck_sees_what_happened_since_the_plan",
    ),
    "crash after the platform accepted": (
        "jobs/test_deliver_doubt.py::test_a_message_in_doubt_is_never_sent_again",
        "jobs/test_deliver_doubt.py::test_a_vendor_that_has_the_message_settles_it",
        "jobs/test_deliver_doubt.py::test_a_vendor_that_cannot_say_is_asked_again_and_the_message_stays_in_doubt",
        "journeys/test_kill_drill.py::test_killed_at_any_moment_nobody_gets_two_mails_and_nobody_is_forgotten",
    ),
    "crash between ledger and CRM write-back": (
        "jobs/test_deliver.py::test_what_the_sender_took_is_handed_over_and_written_back",
        "storage/test_planning.py::test_a_date_the_crm_does_not_show_yet_or_never_will_binds_all_the_same",
    ),
    "CRM write-back permanently refused": (
        "storage/test_planning.py::test_a_date_the_crm_does_not_show_yet_or_never_will_binds_all_the_same",
        "web/test_metrics.py::test_metrics_tell_how_each_connection_fares",
    ),
    "hard bounce": (
        "jobs/test_apply_events.py::test_a_hard_bounce_gives_the_quota_back_and_marks_the_address",
        "core/test_frequency.py::test_a_returned_quota_leaves_the_floor_standing",
        "core/test_writeback.py::test_after_a_bounce_the_date_goes_back_to_the_ask_before",
        "core/test_writeback.py::test_after_a_bounce_a_date_somebody_edited_is_not_rolled_back",
        "storage/test_planning.py::test_who_bounced_in_a_wave_is_not_asked_again_in_it",
    ),
    "send stopped half-way": (
        "storage/test_reservation.py::test_a_send_stopped_half_way_returns_what_has_not_left_and_keeps_the_rest",
    ),
    "CRM user types a later date": (
        "core/test_outside_asks.py::test_a_later_date_is_an_outside_ask_until_the_end_of_its_day",
        "storage/test_people_asks.py::test_a_later_date_is_an_outside_ask_of_that_source",
        "storage/test_people_asks.py::test_a_later_date_is_told_to_the_other_source",
        "core/test_frequency.py::test_outside_asks_count_for_any_same_type_and_year_and_not_for_the_survey",
    ),
    "CRM user types an earlier date or clears it": (
        "core/test_outside_asks.py::test_an_earlier_cleared_or_senseless_date_frees_nobody",
        "storage/test_people_asks.py::test_an_earlier_or_cleared_date_leaves_the_ledger_and_is_restored",
    ),
    "date-only field": (
        "core/test_outside_asks.py::test_the_calendar_day_of_a_known_touch_is_our_own_echo",
        "storage/test_people_asks.py::test_the_day_of_a_touch_we_know_is_our_own_echo",
        "core/test_outside_asks.py::test_the_clamp_compares_dates_with_dates",
        "storage/test_people_asks.py::test_a_date_without_a_time_counts_to_the_end_of_its_day_in_the_workspace_zone",
    ),
    "time zones and daylight saving": (
        "core/test_frequency.py::test_a_day_is_24_hours_whatever_the_calendar_does",
        "core/test_frequency.py::test_a_person_who_moves_west_is_not_asked_twice_on_one_local_day",
        "core/test_waves.py::test_waves_are_of_24_hour_days_over_a_change_of_the_clocks",
        "storage/test_planning.py::test_the_planner_decides_as_the_rule_says",
    ),
    "answer after the window": (
        "core/test_frequency.py::test_an_answer_after_the_window_still_counts_for_the_clock",
        "storage/test_responses.py::test_an_answer_after_the_window_is_stored_as_late_and_starts_the_clock",
    ),
    "answer from a forwarded link": (
        "storage/test_responses.py::test_an_answer_from_a_forwarded_link_is_flagged_and_starts_nobody_s_clock",
    ),
    "scanner opens and clicks": (
        "web/test_survey.py::test_a_thousand_random_fetches_leave_no_answer",
        "jobs/test_close_windows.py::test_a_window_that_closed_without_an_answer_is_silence",
    ),
    "rules tightened or loosened mid-wave": (
        "jobs/test_plan_waves.py::test_rules_tightened_mid_wave_keep_the_reservations_already_made",
    ),
    "first connection with years of history": (
        "jobs/test_plan_waves.py::test_no_first_wave_before_each_source_was_read_whole",
        "jobs/test_plan_waves.py::test_dates_imported_from_a_crm_bind_the_first_wave",
        "jobs/test_sync_contacts.py::test_history_is_imported_as_outside_asks_before_the_first_wave_may_run",
    ),
    "opt-out between reserve and send": (
        "core/test_dispatch.py::test_an_opt_out_wins_whatever_else_holds",
        "storage/test_people_asks.py::test_an_opt_out_that_arrives_between_reserve_and_send_returns_the_reservation",
        "jobs/test_deliver_stops.py::test_an_opt_out_while_others_are_sent_still_wins",
    ),
}


@lru_cache
def names_in(path: str) -> frozenset[str]:
    return frozenset(re.findall(r"^ *def (test_\w+)", (TESTS / path).read_text(), re.MULTILINE))


@pytest.mark.parametrize("row", ROWS)
def test_the_names_in_a_row_exist(row: str) -> None:
    missing = [name for name in ROWS[row] if name.split("::")[1] not in names_in(name.split("::")[0])]
    assert not missing, f"{row}: no such test: {', '.join(missing)}"


def test_every_row_of_the_table_is_here() -> None:
    assert len(ROWS) == 24
