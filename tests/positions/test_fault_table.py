"""What may go wrong with money at stake, and the test that shows what then happens. A row without a test fails."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

KILLS = "positions/test_exit_process.py"
HTTP = "positions/test_execution_over_http.py"
WORLD = "positions/test_fault_enumeration.py"
JOURNAL = "positions/test_journaled_store.py"
EXECUTION = "positions/test_execution.py"
ADAPTER = "positions/test_alpaca_broker.py"
MONITORS = "positions/test_monitors.py"
FEED = "positions/test_alpaca_feed.py"
TRADER = "positions/test_trader.py"
RECONCILE = "positions/test_reconcile.py"
COMMAND = "site/test_trade_command.py"

DATABASE_AWAY = (
    "site/test_trade_without_database.py::test_exits_happen_while_the_database_is_away_and_are_stored_once_it_is_back"
)
KILLED_AT_CALLS = f"{KILLS}::test_a_process_killed_before_and_after_each_of_its_calls_leaves_all_to_the_next"
ENUMERATED = f"{WORLD}::test_no_fault_and_no_pair_of_faults_at_any_call_does_harm"
ON_THE_WAY = f"{HTTP}::test_a_call_that_is_lost_or_refused_on_the_way_delays_and_changes_nothing"
AT_THE_VENUE = f"{HTTP}::test_what_the_venue_does_with_an_order_is_taken_as_it_is"
BEHIND = f"{HTTP}::test_a_view_that_is_behind_delays_and_changes_nothing"
ALL_REFUSED = (
    f"{HTTP}::test_a_broker_that_refuses_everything_leaves_the_stop_where_it_is_and_the_exit_happens_afterwards"
)

ROWS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: ("killed between journal and order", (KILLED_AT_CALLS,)),
    2: ("killed between order and record", (KILLED_AT_CALLS, ENUMERATED)),
    3: (
        "killed between stop and sale",
        (KILLED_AT_CALLS, f"{WORLD}::test_shares_stand_without_a_stop_or_a_closing_order_for_a_moment_only"),
    ),
    4: (
        "killed while the journal is stored",
        (
            f"{KILLS}::test_a_process_killed_at_each_statement_by_which_it_stores_the_journal_stores_it_exactly_once",
            f"{JOURNAL}::test_after_a_kill_the_next_process_stores_what_was_journaled_exactly_once",
            ENUMERATED,
        ),
    ),
    5: (
        "torn line of the journal",
        (f"{JOURNAL}::test_a_journal_torn_at_any_byte_of_its_last_line_keeps_the_lines_before",),
    ),
    6: ("answer lost", (ON_THE_WAY, ENUMERATED)),
    7: ("request lost", (ON_THE_WAY, ENUMERATED)),
    8: ("request late", (ON_THE_WAY, ENUMERATED)),
    9: ("order not shown yet", (AT_THE_VENUE, ENUMERATED)),
    10: (
        "too many requests",
        (
            f"{ADAPTER}::test_after_a_429_the_others_wait_for_the_reset_and_an_exit_tries_after_a_second",
            f"{ADAPTER}::test_entries_and_reads_leave_room_for_exits",
            "positions/test_rate_budget.py::"
            "test_no_minute_sees_more_requests_than_allowed_nor_more_ordinary_ones_than_leave_the_reserve",
        ),
    ),
    11: (
        "server errors and bodies of no sense",
        (f"{ADAPTER}::test_whatever_is_answered_is_an_answer_or_an_error_of_the_broker", ON_THE_WAY),
    ),
    12: (
        "gateway time-out",
        (f"{ADAPTER}::test_an_order_without_an_answer_is_unknown_was_sent_once_and_can_be_looked_up", ON_THE_WAY),
    ),
    13: (
        "no reply",
        (
            f"{ADAPTER}::test_a_broken_service_holds_up_a_tick_only_once_and_an_exit_not_at_all",
            "positions/test_execution_faults.py::test_a_failed_read_in_one_position_does_not_keep_the_others_waiting",
            ON_THE_WAY,
        ),
    ),
    14: (
        "unknown words and fields",
        (
            f"{ADAPTER}::test_one_bad_row_hides_no_other_and_is_not_absent",
            f"{HTTP}::test_words_and_fields_of_tomorrow_do_no_harm",
        ),
    ),
    15: ("keys refused", (f"{ADAPTER}::test_refused_keys_are_not_offered_in_a_hot_loop", ALL_REFUSED)),
    16: (
        "exit filled in part",
        (f"{HTTP}::test_half_an_exit_that_never_fills_further_is_waited_for_and_never_sold_over", ENUMERATED),
    ),
    17: (
        "entry filled in part",
        (
            AT_THE_VENUE,
            f"{WORLD}::test_a_stop_refused_while_its_entry_still_works_waits_for_the_end_of_that",
            ENUMERATED,
        ),
    ),
    18: (
        "shares held by the stop",
        (
            f"{EXECUTION}::test_an_exit_waits_until_the_cancelled_stop_has_set_the_shares_free",
            f"{HTTP}::test_shares_that_are_not_released_are_an_alarm_within_ten_seconds_raised_once",
        ),
    ),
    19: ("stop fills while it is cancelled", (AT_THE_VENUE, ENUMERATED)),
    20: (
        "cancellation that stays pending",
        (f"{HTTP}::test_a_cancellation_that_stays_pending_is_an_alarm_and_the_stop_is_never_sold_over",),
    ),
    21: ("replaced stop fills first", (AT_THE_VENUE, ENUMERATED)),
    22: (
        "stop move refused for now",
        (
            f"{EXECUTION}::test_a_stop_move_that_is_refused_for_now_is_owed_and_made_once_the_market_is_open",
            f"{ADAPTER}::test_a_stop_that_has_the_price_already_is_done",
        ),
    ),
    23: (
        "breakeven beyond the market",
        (
            f"{EXECUTION}::test_a_stop_move_that_is_refused_leaves_the_old_stop_standing",
            f"{EXECUTION}::test_an_entry_filled_beyond_its_stop_leaves_at_the_market",
            "positions/test_rules.py::test_a_breakeven_stop_never_loosens_and_never_passes_the_market",
        ),
    ),
    24: (
        "stop gone",
        (
            f"{EXECUTION}::test_a_stop_cancelled_behind_our_back_is_placed_again",
            f"{EXECUTION}::test_a_stop_that_is_refused_again_and_again_is_given_up_with_an_alarm",
            ENUMERATED,
        ),
    ),
    25: (
        "closed by hand",
        (f"{HTTP}::test_somebody_who_closes_the_position_by_hand_ends_the_trade", ENUMERATED),
    ),
    26: (
        "sold in part or added to by hand",
        (
            f"{EXECUTION}::test_an_exit_sells_no_more_than_is_held",
            f"{RECONCILE}::test_what_was_added_to_our_trade_by_hand_is_listed_and_the_trade_goes_on",
            ENUMERATED,
        ),
    ),
    27: (
        "position that is not ours",
        (
            f"{RECONCILE}::test_a_position_that_is_not_ours_is_listed_once_and_left_alone",
            f"{RECONCILE}::test_by_the_setting_it_gets_a_stop_and_perhaps_the_exit_rules",
            f"{RECONCILE}::test_a_user_may_have_one_adopted",
        ),
    ),
    28: (
        "open here, flat there",
        (
            f"{RECONCILE}::test_a_trade_of_ours_that_was_closed_by_hand_is_closed_by_the_brokers_fills",
            f"{EXECUTION}::test_a_position_closed_by_hand_ends_as_manual_at_the_price_it_was_sold_for",
        ),
    ),
    29: (
        "positions cannot be read",
        (
            f"{RECONCILE}::test_what_cannot_be_read_concludes_nothing",
            f"{ADAPTER}::test_a_read_that_fails_for_good_gives_up_within_its_time_and_is_never_an_empty_answer",
            ENUMERATED,
        ),
    ),
    30: (
        "orders and positions disagree",
        (
            BEHIND,
            f"{HTTP}::test_an_exit_that_does_not_see_its_stop_end_goes_by_the_shares_that_are_free",
            f"{HTTP}::test_an_exit_that_sees_neither_orders_nor_positions_in_time_is_an_alarm",
            ENUMERATED,
        ),
    ),
    31: (
        "two monitors",
        (
            ENUMERATED,
            f"{JOURNAL}::test_two_processes_that_decided_apart_keep_the_reason_that_was_stored_first",
            "positions/test_leases.py::test_a_job_is_done_by_one_process_at_a_time",
        ),
    ),
    32: ("slept while another took over", (f"{TRADER}::test_who_slept_while_another_took_over_sends_nothing_more",)),
    33: (
        "database down",
        (
            f"{JOURNAL}::test_an_exit_decided_and_done_while_the_database_is_down_is_stored_once_with_its_reason",
            f"{JOURNAL}::test_no_entry_is_made_while_the_database_is_down_nor_before_the_journal_is_stored",
            f"{KILLS}::test_a_process_killed_at_any_call_while_the_database_is_down_leaves_its_journal_to_the_next",
            DATABASE_AWAY,
            ENUMERATED,
        ),
    ),
    34: (
        "database slow or locked",
        (
            f"{JOURNAL}::test_an_exit_does_not_wait_for_a_row_that_somebody_holds_locked",
            f"{JOURNAL}::test_an_exit_does_not_wait_for_a_database_that_somebody_holds_locked",
            DATABASE_AWAY,
        ),
    ),
    35: (
        "database restored from a backup",
        (
            f"{JOURNAL}::test_a_database_restored_from_an_old_backup_gets_the_journaled_trade_anew",
            f"{EXECUTION}::test_order_ids_name_book_signal_step_and_attempt_and_never_a_primary_key",
            f"{EXECUTION}::test_an_order_found_under_our_id_that_is_not_ours_is_left_alone_and_the_next_id_is_used",
        ),
    ),
    36: (
        "transaction given up",
        (f"{JOURNAL}::test_a_deadlock_at_any_statement_of_an_exit_repeats_the_write_and_never_the_order",),
    ),
    37: ("disk full", (f"{JOURNAL}::test_a_full_disk_is_an_alarm_and_no_reason_not_to_leave",)),
    38: (
        "bars stale",
        (
            f"{FEED}::test_symbols_grow_stale_without_bars_each_by_itself",
            f"{MONITORS}::test_while_the_whole_feed_is_frozen_no_rule_acts_and_the_stop_stays",
        ),
    ),
    39: (
        "minutes missing or thin",
        (
            f"{MONITORS}::test_missing_minutes_are_not_a_dried_up_volume_and_let_no_rule_act",
            f"{MONITORS}::test_a_dried_up_volume_closes_the_trade_when_enough_bars_show_it",
        ),
    ),
    40: (
        "bar corrected late",
        (
            "site/test_audit.py::test_a_bar_corrected_afterwards_is_data_that_arrived_late_and_no_difference",
            f"{FEED}::test_a_corrected_bar_revises_the_last_minute_and_is_stored_beside_the_first",
        ),
    ),
    41: (
        "absurd price",
        (
            "positions/test_bar_files.py::test_a_bar_that_cannot_be_true_is_refused_and_becomes_no_bar",
            "positions/test_bar_files.py::"
            "test_one_print_far_away_is_refused_and_the_next_is_judged_by_the_last_good_one",
            f"{FEED}::test_bad_prints_are_kept_out_and_counted",
        ),
    ),
    42: (
        "clocks apart or set back",
        (
            f"{ADAPTER}::test_the_skew_of_the_clock_is_measured",
            "positions/test_rate_budget.py::test_a_clock_that_is_set_back_does_not_stop_trading",
        ),
    ),
    43: (
        "halt and reopening",
        (
            "positions/test_alpaca_server.py::test_during_a_halt_orders_wait_and_stops_elect_at_the_reopening",
            f"{MONITORS}::test_through_a_halt_nothing_is_sold_and_after_the_reopening_the_trade_is_left_once",
        ),
    ),
    44: (
        "close, early close, holiday",
        (
            f"{MONITORS}::test_everything_is_closed_five_minutes_before_the_session_ends_even_without_bars",
            f"{TRADER}::test_on_an_early_close_the_clock_leaves_before_the_real_bell_and_a_holiday_is_no_session",
            "site/test_plan_fidelity.py::"
            "test_on_simulated_sessions_with_an_early_close_every_trade_left_alone_ends_as_its_plan",
        ),
    ),
    45: ("told to end", (f"{COMMAND}::test_a_process_that_is_told_to_end_does_so_within_five_seconds",)),
    46: (
        "process dead or hanging",
        (
            f"{COMMAND}::test_a_standby_takes_over_once_the_lease_has_run_out",
            f"{KILLS}::test_with_fifty_positions_all_are_protected_and_known_within_five_seconds_of_a_start",
        ),
    ),
    47: (
        "fails again and again",
        (f"{TRADER}::test_what_goes_wrong_with_one_is_told_and_too_much_of_it_ends_the_process",),
    ),
    48: (
        "one position fails",
        (f"{TRADER}::test_one_position_that_cannot_be_judged_does_not_keep_the_other_from_being_closed",),
    ),
    49: (
        "kill switch",
        (
            "site/test_halt.py::test_a_halt_lasts_until_resume_and_is_one_books_own",
            "site/test_halt.py::test_a_file_that_cannot_be_read_blocks",
        ),
    ),
    50: (
        "losses and too many positions",
        ("positions/test_rules.py::test_each_protection_blocks_entries_and_says_which_it_is",),
    ),
    51: (
        "runaway orders",
        (
            "positions/test_rules.py::test_each_protection_blocks_entries_and_says_which_it_is",
            f"{EXECUTION}::"
            "test_an_exit_that_is_refused_again_and_again_is_given_up_with_an_alarm_and_its_shares_protected",
        ),
    ),
    52: (
        "model unusable",
        (
            "ml/test_ml_system.py::test_an_unusable_model_lets_signals_go_on_and_says_why_once",
            "ml/test_predictor.py::test_an_altered_artifact_is_refused_with_the_model_s_name",
            "ml/test_predictor.py::test_trees_grown_on_columns_in_another_order_are_refused",
        ),
    ),
    53: (
        "source of a feature gone",
        (
            "ml/test_feature_extractor.py::test_without_an_index_and_a_vix_both_are_null_with_their_reasons",
            "ml/test_feature_extractor.py::test_an_unknown_sector_is_null_with_its_reason_and_does_not_spoil_the_row",
        ),
    ),
    54: (
        "settings changed in a trade",
        (
            f"{MONITORS}::test_settings_changed_in_a_trade_hold_from_the_next_tick_and_leave_its_plan_as_it_was",
            f"{MONITORS}::test_a_switch_that_is_turned_off_is_off_from_the_next_tick",
            "positions/test_rules.py::test_the_settings_hash_changes_with_any_number",
        ),
    ),
    55: (
        "fees not known yet",
        ("positions/test_fees.py::test_a_live_trade_pays_what_the_regulators_take_instead_of_the_assumed_cost",),
    ),
    56: ("secrets told", (f"{ADAPTER}::test_the_keys_stand_in_no_message_and_no_repr",)),
}


@cache
def functions_of(file: str) -> frozenset[str]:
    path = TESTS / file
    if not path.exists():
        return frozenset()
    return frozenset(node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


def missing(tests: tuple[str, ...]) -> list[str]:
    return [test for test in tests if test.partition("::")[2] not in functions_of(test.partition("::")[0])]


def test_every_row_is_there():
    assert list(ROWS) == list(range(1, 57))


@pytest.mark.parametrize("row", ROWS, ids=[f"{row} {what}" for row, (what, _) in ROWS.items()])
def test_every_row_has_tests_that_exist(row):
    assert ROWS[row][1]
    assert missing(ROWS[row][1]) == []


def test_the_coverage_is_told(capsys):
    covered = [row for row, (_, tests) in ROWS.items() if tests and not missing(tests)]
    with capsys.disabled():
        sys.stdout.write(f"\n{len(covered)} of {len(ROWS)} kinds of faults have their tests ")
    assert covered == list(ROWS)
