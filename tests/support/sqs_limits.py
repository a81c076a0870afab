"""What of the contract SQS cannot keep, as data: the reason, and the tests that ask for it. The rest has to pass."""

from __future__ import annotations

from typing import Any, Final

#: Whole files, or single tests, by reason. ARCHITECTURE.md and docs/sqs.md say the same to people.
BEYOND_SQS: Final[dict[str, tuple[str, ...]]] = {
    "nobody can look into a queue": ("test_places.py", "test_unique_places.py"),
    "there are no locks": ("test_unique.py",),
    "a delayed message cannot be found": ("test_discarding.py",),
    "what runs is not noted: that would be a request for each": ("test_started.py",),
    "time brings messages back, and nobody is told": (
        "test_giving_back.py",
        "test_what_was_taken_one_by_one_is_recalled_and_comes_back_in_that_order",
        "test_a_dead_owner_s_messages_come_back_to_the_front_in_their_order",
        "test_recovered_bytes_are_untouched",
        "test_extend_names_what_was_lost",
        "test_the_lease_time_out_of_the_options_wins",
        "test_two_workers_recover_each_message_once",
        "test_more_than_a_batch_comes_back_in_order",
        "test_what_an_owner_holds_when_it_leaves_comes_back_after_its_lease",
        "test_maintain_says_when_the_next_lease_ends",
        "test_reserving_renews_the_lease",
        "test_whoever_looks_when_maintain_says_finds_the_dead_at_once",
        "test_an_owner_that_gets_its_lost_message_back_cannot_settle_the_first_receipt",
        "test_a_crash_count_survives_the_death_of_the_owner",
        "test_recall_finds_what_a_lost_reply_has_taken",
        "test_recall_says_queue_crashes_and_bytes",
        "test_maintain_says_when_the_next_one_is_due",
        "test_more_than_a_batch_is_said_to_be_more",
        "test_an_earlier_due_time_wakes",
    ),
    "an idle worker is woken by messages, not by their arrival: another one may have them": (
        "test_every_idle_worker_is_woken",
    ),
    "there are no priorities, and a queue has no front": (
        "test_they_come_back_with_their_priority",
        "test_lower_priority_numbers_come_first",
        "test_a_better_priority_in_another_queue_comes_first",
        "test_an_envelope_for_the_front_is_the_next",
        "test_a_successor_may_go_to_the_front",
        "test_requeued_messages_return_to_their_own_queue_and_priority",
        "test_low_priorities_are_not_starved",
        "test_the_window_is_filled_from_wherever_something_waits",
        "test_a_delayed_message_keeps_queue_priority_side_and_bytes",
    ),
    "delays are whole seconds, and what comes back finds its old place": (
        "test_delayed_messages_arrive_in_the_order_of_their_times",
        "test_equal_times_keep_the_order_of_publishing",
        "test_a_requeue_goes_behind_what_waits_when_its_time_comes",
        "test_a_requeue_whose_time_has_passed_goes_behind_what_waits_at_once",
        "test_crashes_are_counted_across_requeues_delays_and_owners",
    ),
    "shares between queues are kept in polls, not in messages": (
        "test_round_robin_gives_every_queue_the_same",
        "test_one_reserve_shares_its_limit_between_queues",
        "test_weights_are_kept_in_messages_whatever_the_size_of_a_claim",
        "test_a_strict_order_leaves_the_others_one_message_in_ten",
        "test_the_share_of_the_others_can_be_set",
        "test_without_a_share_the_order_is_strict",
        "test_what_is_owed_to_the_others_is_not_saved_up_while_they_have_nothing",
        "test_who_got_much_while_others_had_nothing_owes_nothing",
    ),
    "names, sizes and numbers of messages have limits": (
        "test_queue_names_may_hold_anything",
        "test_a_message_of_ten_megabytes_passes_untouched",
        "test_one_reserve_does_not_fill_the_memory_with_large_messages",
        "test_large_letters_go_in_one_call_too",
    ),
    "many are sent and polled side by side, in no order": (
        "test_large_numbers_of_letters_go_in_one_call",
        "test_a_large_batch_is_settled_in_one_call",
    ),
}


def is_beyond_sqs(item: Any) -> bool:
    """Whether a test asks for what is named above, or wants to see every message's place."""
    named = {name for names in BEYOND_SQS.values() for name in names}
    looks_inside = "broker" in item._fixtureinfo.argnames
    return looks_inside or item.path.name in named or item.originalname in named
