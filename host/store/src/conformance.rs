//! The conformance suite for engines behind [`Queue`]. It uses only the queue's interface: for a new engine, call [`run`] with a
//! [`Harness`]. The end of a process is simulated by a queue that is dropped and opened again.
//!
//! - [`messages`], [`batches`], [`operators`]: the basic operations
//! - [`limits`]: messages that are submitted again for other channel types
//! - [`blocked`]: messages that wait for a destination that is down
//! - [`suspects`]: processes that end with messages in flight
//! - [`feedback`]: what providers report; [`feedback_model`]: the same at random
//! - [`recipients`]: finding the messages of a person
//! - [`clocks`]: a wall clock that jumps
//! - [`properties`]: random [`operations`], compared with a [`model`]

mod batches;
mod blocked;
mod clocks;
mod feedback;
mod feedback_model;
mod limits;
mod messages;
mod model;
mod operations;
mod operators;
mod properties;
mod recipients;
mod suspects;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::queue::{
    Accepted, BatchState, Claim, ClaimNo, Claimed, ClaimedBatch, Done, Erased, EventId, Filter, LEASE, Limits,
    MessageId, New, NewBatch, NewEvent, Priority, Queue, QueueError, Selection, Settings, Settled, Settlement, State,
    Stats, digest,
};

/// A store of an engine, and the hooks that the suite needs. It is empty at first, and deleted when this is dropped.
pub trait Harness {
    /// Opens the store with these settings, at a location that the harness chooses. A queue that was opened before has been dropped.
    fn open(&self, settings: Settings, now: Timestamp) -> Queue;

    /// Makes every lease that much older.
    fn age_leases<'a>(&'a self, queue: &'a Queue, by: Duration) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

    /// Makes the next transaction fail at its end, so that it is rolled back.
    fn fail_next_write(&self, queue: &Queue);
}

/// Creates an empty store.
pub type NewHarness<'a> = &'a dyn Fn() -> Box<dyn Harness>;

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// Calls `each` with the name and the future of each case.
        fn each_case<'a>(new_harness: NewHarness<'a>, each: &dyn Fn(&str, Pin<Box<dyn Future<Output = ()> + 'a>>)) {
            $(each(stringify!($name), Box::pin($module::$name(new_harness)));)*
        }

        #[cfg(test)]
        mod sqlite {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$module::$name(&super::on_sqlite).await;
                }
            )*

            #[test]
            fn a_suspect_of_a_cancelled_batch_is_cancelled() {
                super::properties::a_suspect_of_a_cancelled_batch_is_cancelled(&super::on_sqlite);
            }

            #[test]
            fn the_queue_does_what_the_model_does() {
                super::properties::the_queue_does_what_the_model_does(&super::on_sqlite);
            }

            #[test]
            fn feedback_is_as_the_model_says() {
                super::feedback_model::feedback_is_as_the_model_says(&super::on_sqlite);
            }
        }
    };
}

cases! {
    messages::a_message_is_accepted_claimed_and_settled_once,
    messages::a_repeated_message_is_the_same_and_a_different_one_a_conflict,
    messages::transactional_messages_come_first_and_no_batch_starves_another,
    messages::a_message_waits_for_its_time,
    messages::a_message_is_not_claimed_a_fraction_of_a_millisecond_early,
    messages::accepted_messages_survive_the_process_and_those_in_flight_are_in_doubt,
    messages::a_lease_ends_and_late_settlements_are_ignored,
    messages::a_full_queue_rejects_messages,
    messages::after_a_failed_write_every_claim_has_a_lease,
    operators::dead_letters_are_retried_and_discarded,
    operators::the_progress_of_a_dead_letter_is_kept_for_a_retry_and_erased_with_its_body,
    operators::a_change_of_a_selection_obeys_its_limit,
    operators::a_waiting_message_can_be_cancelled_and_one_in_flight_cannot,
    operators::messages_are_found_by_person_name_state_and_time,
    operators::all_messages_of_a_person_are_erased,
    operators::webhook_deliveries_are_stored_until_they_end,
    batches::a_repeated_batch_contains_each_message_once,
    batches::a_batch_is_paused_resumed_and_cancelled,
    limits::a_waiting_message_is_claimed_with_the_limits_of_all_its_requests,
    limits::a_message_without_a_limit_includes_all_channel_types,
    limits::an_extended_message_is_due_now_unless_it_is_scheduled,
    limits::a_message_extended_in_flight_is_requeued_after_its_settlement,
    limits::an_extended_settled_message_is_requeued_and_counted,
    limits::a_cancelled_or_discarded_message_is_not_extended,
    limits::a_retried_dead_letter_keeps_its_limit,
    blocked::blocked_messages_are_claimed_when_unblocked_or_when_they_are_due,
    blocked::blocked_messages_are_tried_in_turn,
    blocked::only_unblocked_messages_of_a_held_batch_are_claimed,
    blocked::a_message_blocked_by_two_destinations_is_unblocked_once,
    blocked::blocked_messages_can_be_cancelled_and_erased,
    blocked::blocked_messages_survive_a_restart,
    blocked::the_age_of_a_retried_message_starts_with_the_retry,
    suspects::a_suspect_waits_longer_each_time_and_is_finally_a_culprit,
    suspects::only_unexpected_ends_are_counted,
    suspects::a_finished_attempt_ends_the_suspicion,
    suspects::suspects_can_be_paused_cancelled_and_erased,
    suspects::a_panic_of_a_worker_counts_like_the_end_of_a_process,
    suspects::interruptions_in_one_millisecond_have_times_of_their_own,
    recipients::a_person_is_found_and_erased_by_any_form_of_the_address,
    feedback::feedback_is_stored_once_and_found_by_each_of_its_names,
    feedback::feedback_reaches_only_messages_that_were_delivered_over_its_channels,
    feedback::feedback_waits_for_its_message_and_is_announced_then,
    feedback::feedback_is_erased_with_its_message_its_person_and_its_age,
    feedback::feedback_beyond_the_limit_is_rejected_as_a_whole,
    clocks::a_clock_that_is_set_back_delays_only_scheduled_messages,
    clocks::a_clock_that_is_set_back_between_processes_delays_nothing,
    clocks::after_a_clock_jump_many_messages_become_due_in_steps,
    clocks::a_clock_that_is_set_forward_ends_pauses_but_not_leases,
    clocks::retention_tolerates_clock_jumps,
    clocks::a_clock_jump_does_not_change_the_pause_of_a_webhook_delivery,
}

/// Runs all cases, each on new stores. Blocks; must not be called on an async thread.
///
/// # Panics
/// If a case fails. The last log line names it.
pub fn run(new_harness: NewHarness<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    each_case(new_harness, &|name, case| {
        tracing::info!(name, "A case of the conformance suite starts.");
        runtime.block_on(case);
    });
    properties::a_suspect_of_a_cancelled_batch_is_cancelled(new_harness);
    properties::the_queue_does_what_the_model_does(new_harness);
    feedback_model::feedback_is_as_the_model_says(new_harness);
}

/// The store of one case.
struct Home(Box<dyn Harness>);

impl Home {
    fn new(new_harness: NewHarness<'_>) -> Home {
        Home(new_harness())
    }

    fn settings(&self) -> Settings {
        Settings { disk_reserve: 0, ..Settings::default() }
    }

    fn open(&self) -> Queue {
        self.open_with(self.settings(), at(1_000))
    }

    fn open_with(&self, settings: Settings, now: Timestamp) -> Queue {
        self.0.open(settings, now)
    }

    /// Makes every lease end.
    async fn age_leases(&self, queue: &Queue) {
        self.0.age_leases(queue, LEASE).await;
    }

    fn fail_next_write(&self, queue: &Queue) {
        self.0.fail_next_write(queue);
    }
}

const TRANSACTIONAL: Priority = Priority::TRANSACTIONAL;
const ORDINARY: Priority = Priority::ORDINARY;

pub(crate) fn new_batch(uuid: Uuid, kind: Vec<u8>) -> NewBatch {
    NewBatch { uuid, digest: digest(&kind), kind }
}

fn event(kind: &'static str) -> NewEvent {
    NewEvent { kind: kind.into(), body: b"{}".to_vec() }
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

pub(crate) fn new(number: u128, priority: Priority) -> New {
    let body = format!("{{\"n\": {number}}}").into_bytes();
    New {
        uuid: Uuid::from_u128(number),
        digest: digest(&body),
        priority,
        name: "app.note".to_owned(),
        user: Some(format!("{}", number % 7)),
        email: Some(format!("user{}@example.com", number % 7)),
        not_before: None,
        trace: None,
        body,
        limit: None,
        claim: false,
    }
}

pub(crate) async fn accept(queue: &Queue, numbers: impl IntoIterator<Item = u128>, priority: Priority) {
    let news: Vec<New> = numbers.into_iter().map(|n| new(n, priority)).collect();
    let accepted = queue.accept(news, at(1_000)).await.expect("accepted");
    assert!(accepted.iter().all(|a| matches!(a, Accepted::New(_))), "{accepted:?}");
}

pub(crate) async fn claim(queue: &Queue, max: usize, second: i64) -> Vec<Claimed> {
    queue.claim(Claim { max, bulk_max: max }, at(second)).await.expect("claimed").messages
}

pub(crate) fn numbers(claimed: &[Claimed]) -> Vec<u128> {
    claimed.iter().map(|c| c.uuid.as_u128()).collect()
}

pub(crate) async fn settle(queue: &Queue, claimed: &[Claimed], settlement: Settlement) {
    let settled =
        claimed.iter().map(|c| Settled { id: c.id, claim: c.claim, settlement: settlement.clone() }).collect();
    queue.settle(settled, at(1_001)).await.expect("settled");
}

pub(crate) fn done(state: State) -> Settlement {
    Settlement::Done(Done::new(state, b"{\"report\": 1}".to_vec()))
}

fn again(second: i64) -> Settlement {
    Settlement::Defer { due: at(second), progress: b"half-way".to_vec() }
}

async fn state(queue: &Queue, number: u128) -> State {
    queue.message(Uuid::from_u128(number)).await.expect("asked").expect("it is there").state
}

/// A database in a folder of its own.
#[cfg(test)]
struct OnSqlite(tempfile::TempDir);

#[cfg(test)]
fn on_sqlite() -> Box<dyn Harness> {
    Box::new(OnSqlite(tempfile::tempdir().expect("a folder")))
}

#[cfg(test)]
impl Harness for OnSqlite {
    fn open(&self, settings: Settings, now: Timestamp) -> Queue {
        let settings = Settings { database: self.0.path().join("ace.db"), ..settings };
        Queue::open(&settings, now).unwrap_or_else(|e| panic!("{e}"))
    }

    fn age_leases<'a>(&'a self, queue: &'a Queue, by: Duration) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(queue.age_leases(by))
    }

    fn fail_next_write(&self, queue: &Queue) {
        queue.fail_next_write();
    }
}
