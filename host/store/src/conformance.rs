//! What every engine behind [`Queue`] must do, written against its front alone: whoever adds an engine calls [`run`] with a
//! [`Harness`] for it. A process that dies is a queue that is dropped and opened again.
//!
//! - [`messages`], [`batches`], [`operators`]: what the queue is for
//! - [`limits`]: the same message for further channel types
//! - [`blocked`]: messages that wait for a destination that is down
//! - [`suspects`]: processes that end with messages in flight
//! - [`recipients`]: one rule for whom a message is for
//! - [`clocks`]: a wall clock that jumps
//! - [`properties`]: random [`operations`] beside a [`model`]

mod batches;
mod blocked;
mod clocks;
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
    Accepted, BatchState, Claim, ClaimNo, Claimed, ClaimedBatch, Erased, EventId, Filter, LEASE, Limits, MessageId,
    New, NewBatch, NewEvent, Priority, Queue, QueueError, Selection, Settings, Settled, Settlement, State, Stats,
    digest,
};

/// One store of an engine, and the hooks that the suite needs. It is empty at first, and is removed when this is dropped.
pub trait Harness {
    /// Opens the store with these settings, in a place of the harness's own. A queue that was opened before has been dropped.
    fn open(&self, settings: Settings, now: Timestamp) -> Queue;

    /// Makes every lease that much older.
    fn age_leases<'a>(&'a self, queue: &'a Queue, by: Duration) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

    /// Makes the next transaction fail at its end, with nothing of it written.
    fn fail_next_write(&self, queue: &Queue);
}

/// Makes an empty store.
pub type Make<'a> = &'a dyn Fn() -> Box<dyn Harness>;

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// Passes the name and the future of each case to `each`.
        fn each_case<'a>(make: Make<'a>, each: &dyn Fn(&str, Pin<Box<dyn Future<Output = ()> + 'a>>)) {
            $(each(stringify!($name), Box::pin($module::$name(make)));)*
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
            fn the_queue_does_what_the_model_does() {
                super::properties::the_queue_does_what_the_model_does(&super::on_sqlite);
            }
        }
    };
}

cases! {
    messages::a_message_is_accepted_claimed_and_settled_once,
    messages::the_same_message_again_is_the_same_and_another_under_its_uuid_is_a_conflict,
    messages::transactional_goes_first_and_no_batch_starves_another,
    messages::a_message_waits_for_its_time,
    messages::a_message_is_not_claimed_within_the_millisecond_before_it_is_due,
    messages::nothing_accepted_is_lost_with_the_process_and_what_was_in_flight_comes_back_in_doubt,
    messages::a_worker_that_is_not_heard_of_any_more_loses_its_lease,
    messages::a_full_queue_accepts_no_message_and_says_so,
    messages::a_write_that_fails_leaves_no_claim_that_never_ends,
    operators::dead_letters_are_kept_whole_tried_again_and_discarded,
    operators::what_a_dead_letter_was_settled_with_is_there_when_it_is_tried_again_and_goes_with_its_body,
    operators::a_change_of_many_changes_no_more_than_its_limit,
    operators::a_waiting_message_can_be_cancelled_and_one_in_flight_cannot,
    operators::messages_are_found_by_person_name_state_and_time,
    operators::a_person_is_erased_everywhere,
    operators::webhook_deliveries_are_kept_until_they_end,
    batches::a_batch_that_is_sent_again_yields_each_message_once,
    batches::a_batch_is_paused_resumed_and_cancelled,
    limits::a_waiting_message_is_claimed_with_the_limits_of_all_its_requests,
    limits::one_without_a_limit_was_asked_for_everything,
    limits::a_deferred_message_is_due_at_once_and_a_scheduled_one_at_its_time,
    limits::one_that_is_in_flight_goes_on_once_its_worker_is_done,
    limits::one_that_is_settled_is_opened_again_and_counted_as_such,
    limits::a_cancelled_or_discarded_message_stays_so,
    limits::a_dead_letter_that_is_tried_again_keeps_its_limit,
    blocked::blocked_messages_are_claimed_when_unblocked_or_when_they_are_due,
    blocked::each_is_tried_in_its_turn_so_that_one_bad_message_does_not_stand_for_all,
    blocked::nothing_is_claimed_of_a_batch_that_is_held_but_what_is_brought_back,
    blocked::a_message_that_waits_for_two_is_brought_back_once,
    blocked::a_blocked_message_can_be_cancelled_and_erased_and_leaves_nothing,
    blocked::blocked_messages_are_known_after_a_restart,
    blocked::a_message_that_is_tried_again_is_as_old_as_that,
    suspects::from_the_third_time_on_a_message_waits_longer_each_time_and_after_the_last_it_is_not_tried,
    suspects::only_what_nobody_asked_for_counts,
    suspects::a_finished_attempt_ends_the_suspicion_and_innocent_messages_are_never_set_aside,
    suspects::a_suspect_is_paused_and_cancelled_with_its_batch_and_can_be_cancelled_and_erased,
    suspects::a_panic_of_the_worker_counts_at_once_as_an_end_of_the_process_would,
    recipients::a_listed_person_is_erased_however_the_address_is_written,
    clocks::a_clock_that_is_set_back_holds_nothing_up_but_what_has_a_moment_of_its_own,
    clocks::a_clock_that_is_set_back_while_no_process_runs_holds_nothing_up,
    clocks::more_than_one_step_of_waiting_messages_is_brought_back,
    clocks::a_clock_that_is_set_forward_ends_pauses_and_no_lease,
    clocks::retention_survives_both_directions,
    clocks::a_webhook_is_called_again_after_its_pause_whatever_the_clock_says,
}

/// Runs every case on stores of its own. Blocks; not for an async thread.
///
/// # Panics
/// An engine does not do what it must; the panic says what, and the last log line names the case.
pub fn run(make: Make<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    each_case(make, &|name, case| {
        tracing::info!(name, "A case of the conformance suite starts.");
        runtime.block_on(case);
    });
    properties::the_queue_does_what_the_model_does(make);
}

/// The store of one case.
struct Home(Box<dyn Harness>);

impl Home {
    fn new(make: Make<'_>) -> Home {
        Home(make())
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

    /// Every lease has ended.
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
    Settlement::Done { state, report: b"{\"report\": 1}".to_vec(), event: None, kept: None }
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
