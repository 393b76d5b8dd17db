//! Runs random operations on a queue and on a model in memory, and compares them after each operation. The clock jumps, leases end, and
//! the queue is reopened.

use proptest::collection::vec;
use proptest::test_runner::{Config, TestRunner};

use super::model::*;
use super::operations::*;
use super::*;

const MESSAGES_MAX: usize = 14;
const WEBHOOK: &str = "audit";

/// The queue and its model.
struct Comparison {
    home: Home,
    queue: Option<Queue>,
    model: Model,
}

impl Comparison {
    async fn new(new_harness: NewHarness<'_>) -> Comparison {
        let model = Model {
            now: 1_000 * HOUR,
            clock: None,
            messages: BTreeMap::new(),
            batches: [None, None],
            events: Vec::new(),
            last_event: EventId::START,
            pruned: EventId::START,
        };
        let mut comparison = Comparison { home: Home::new(new_harness), queue: None, model };
        comparison.open().await;
        comparison
    }

    async fn open(&mut self) {
        self.queue = None;
        let hours = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        let settings = Settings {
            max_messages: MESSAGES_MAX as u64,
            max_settled: SETTLED_MAX as u64,
            retention: hours(RETENTION),
            dead_letter_retention: hours(DEAD_RETENTION),
            event_retention: hours(EVENT_RETENTION),
            ..self.home.settings()
        };
        let queue = self.home.open_with(settings, at(self.model.now));
        queue.set_webhooks(vec![WEBHOOK.to_owned()]).await.expect("set");
        self.queue = Some(queue);
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().expect("it is open")
    }

    fn now(&self) -> Timestamp {
        at(self.model.now)
    }

    async fn step(&mut self, op: Op) {
        match op {
            Op::Accept { first, count, priority, not_before, other, claim } => {
                let priority = self.priority(priority).await;
                let numbers = (first..first + count).map(|n| n % NUMBERS);
                let news = numbers.map(|n| New {
                    not_before: not_before.map(|after| at(self.model.now + after)),
                    claim,
                    ..new_message(n, priority, other)
                });
                self.accept(news.collect(), not_before, other).await;
            }
            Op::Claim { max, bulk_max } => {
                let claim = Claim { max, bulk_max };
                let claimed_batch = self.queue().claim(claim, self.now()).await.expect("claimed");
                self.model.claim(claim, &claimed_batch);
            }
            Op::Settle { which, outcome } => self.settle(which, outcome, false).await,
            Op::SettleLate { which, outcome } => self.settle(which, outcome, true).await,
            Op::Retry(number) => self.retry(number).await,
            Op::Discard(number) => self.discard(number).await,
            Op::Cancel(number) => self.cancel(number).await,
            Op::RetryAll(user) => self.retry_all(user).await,
            Op::DiscardAll(user) => self.discard_all(user).await,
            Op::Batch(batch, turn) => self.turn(batch, turn).await,
            Op::Erase { user, email } => self.erase(user, email).await,
            Op::Deliver { again } => self.deliver(again).await,
            Op::Maintain => {
                self.queue().maintain(self.now()).await.expect("maintained");
                self.model.prune();
            }
            Op::LeasesEnd => {
                self.home.age_leases(self.queue()).await;
                self.model.messages.values_mut().for_each(|m| m.has_lost_lease = m.stage == Stage::InFlight);
            }
            Op::Clock(by) => self.model.now += by,
            Op::Fail => self.fail().await,
            Op::ClaimSuspect => {
                let claimed = self.queue().claim_suspect(self.now()).await.expect("claimed");
                self.model.claim_suspect(claimed.as_ref());
            }
            Op::Reopen { is_clean } => self.reopen(is_clean).await,
        }
        self.compare().await;
    }

    async fn retry(&mut self, number: u128) {
        let answer = self.queue().retry(Uuid::from_u128(number), self.now()).await;
        let now = self.model.now;
        match self.model.messages.get_mut(&number) {
            None => assert_eq!(answer, Err(QueueError::Unknown("message"))),
            Some(message) if message.can_be_retried() => {
                assert_eq!(answer, Ok(()));
                message.retry(now);
            }
            Some(_) => assert!(matches!(answer, Err(QueueError::State(_))), "{answer:?}"),
        }
    }

    async fn discard(&mut self, number: u128) {
        let answer = self.queue().discard(Uuid::from_u128(number)).await;
        match self.model.messages.get_mut(&number) {
            None => assert_eq!(answer, Err(QueueError::Unknown("message"))),
            Some(message) if message.state().is_dead() => {
                assert_eq!(answer, Ok(()));
                message.discard();
            }
            Some(_) => assert!(matches!(answer, Err(QueueError::State(_))), "{answer:?}"),
        }
    }

    async fn cancel(&mut self, number: u128) {
        let answer = self.queue().cancel(Uuid::from_u128(number), self.now()).await;
        let now = self.model.now;
        match self.model.messages.get_mut(&number) {
            None => assert_eq!(answer, Err(QueueError::Unknown("message"))),
            Some(message) if matches!(message.stage, Stage::Waiting(_)) => {
                assert_eq!(answer, Ok(()));
                message.settle(State::Cancelled, b"", now);
            }
            Some(_) => assert!(matches!(answer, Err(QueueError::State(_))), "{answer:?}"),
        }
    }

    async fn retry_all(&mut self, user: Option<u128>) {
        let changed = self.queue().retry_all(of_user(user), self.now()).await;
        let now = self.model.now;
        let mut n = 0;
        for message in self.of(user).filter(|m| m.can_be_retried()) {
            message.retry(now);
            n += 1;
        }
        assert_eq!(changed, Ok(n), "tried again");
    }

    async fn discard_all(&mut self, user: Option<u128>) {
        let changed = self.queue().discard_all(of_user(user)).await;
        let mut n = 0;
        for message in self.of(user).filter(|m| m.state().is_dead()) {
            message.discard();
            n += 1;
        }
        assert_eq!(changed, Ok(n), "discarded");
    }

    async fn erase(&mut self, user: Option<u128>, email: Option<u128>) {
        let (by_user, by_email) = (user.map(|n| n.to_string()), email.map(|n| format!("USER{n}@example.com")));
        let erased = self.queue().erase(by_user, by_email).await.expect("erased");
        let mut expected = Erased::default();
        let is_meant = |number: &u128| [user, email].contains(&Some(*number % 7));
        for number in self.model.messages.keys().copied().filter(is_meant).collect::<Vec<_>>() {
            match self.model.messages[&number].stage {
                Stage::Waiting(_) => expected.waiting += 1,
                Stage::InFlight => expected.in_flight += 1,
                Stage::Settled(..) => expected.settled += 1,
            }
            self.model.erase(number);
        }
        assert_eq!(erased, expected);
    }

    async fn fail(&mut self) {
        self.home.fail_next_write(self.queue());
        assert!(self.queue().accept(vec![new(NUMBERS, ORDINARY)], self.now()).await.is_err());
        self.home.fail_next_write(self.queue());
        assert!(self.queue().claim(Claim { max: 9, bulk_max: 9 }, self.now()).await.is_err());
        // The end of a lease that was rolled back makes it a new one, without its claim number.
        for message in self.model.messages.values_mut().filter(|m| m.has_lost_lease) {
            (message.has_lost_lease, message.claim) = (false, None);
        }
    }

    async fn reopen(&mut self, is_clean: bool) {
        if is_clean {
            self.queue().note_shutdown().await.expect("noted");
        }
        self.open().await;
        let latest = self.model.messages.values().max_by_key(|m| m.id).map(|m| m.accepted);
        self.model.clock = latest.max(self.model.messages.values().filter_map(KnownMessage::settled).max());
        self.model.requeue(!is_clean, |_| true);
    }

    /// The priority class with an index. Its batch is created or found.
    async fn priority(&mut self, which: usize) -> Priority {
        let Some(batch) = which.checked_sub(2) else { return if which == 0 { TRANSACTIONAL } else { ORDINARY } };
        let kind = b"kind".to_vec();
        let created = self.queue().create_batch(new_batch(batch_uuid(batch), kind), self.now()).await.expect("created");
        let now = self.model.now;
        let batch_model = self.model.batches[batch].get_or_insert(KnownBatch {
            priority: created.priority,
            state: BatchState::Receiving,
            created: now,
        });
        assert_eq!((created.priority, created.created), (batch_model.priority, at(batch_model.created)));
        let priorities: Vec<Priority> =
            self.model.batches.iter().flatten().map(|batch_model| batch_model.priority).collect();
        assert!(priorities.len() < 2 || priorities[0] != priorities[1], "its own priority class");
        created.priority
    }

    async fn accept(&mut self, news: Vec<New>, not_before: Option<i64>, other: bool) {
        let answer = self.queue().accept(news.clone(), self.now()).await;
        let unsettled = self.model.unsettled();
        let is_closed = |batch_model: &KnownBatch| {
            batch_model.priority == news[0].priority && batch_model.state == BatchState::Cancelled
        };
        if unsettled + news.len() > MESSAGES_MAX {
            return assert_eq!(answer, Err(QueueError::Full(unsettled as u64)));
        }
        if self.model.batches.iter().flatten().any(is_closed) {
            return assert!(matches!(answer, Err(QueueError::State(_))), "{answer:?}");
        }
        let now = self.model.now;
        for (new, accepted) in news.iter().zip(answer.expect("accepted")) {
            let number = new.uuid.as_u128();
            let known = self.model.messages.get(&number);
            match (known, accepted) {
                (Some(known), Accepted::Same(state)) => assert_eq!((known.other, known.state()), (other, state)),
                (Some(known), Accepted::Conflict) => assert_ne!(known.other, other),
                (None, Accepted::New(id)) => {
                    assert!(self.model.messages.values().all(|m| m.id < id), "a new id, and the highest");
                    let due = now + not_before.unwrap_or_default();
                    let stage = if new.claim { Stage::InFlight } else { Stage::Waiting(due) };
                    let known = KnownMessage {
                        id,
                        priority: new.priority,
                        other,
                        accepted: now,
                        stage,
                        has_body: true,
                        progress: None,
                        report: None,
                        in_doubt: false,
                        interruptions: 0,
                        is_suspect: false,
                        has_lost_lease: false,
                        claim: Some(ClaimNo::FIRST),
                    };
                    self.model.messages.insert(number, known);
                }
                (known, accepted) => panic!("{accepted:?}, and it is {known:?}"),
            }
        }
    }

    /// `is_late`: for a claim that has ended, so it must be ignored.
    async fn settle(&mut self, which: usize, outcome: Outcome, is_late: bool) {
        let in_flight = |(number, m): (&u128, &KnownMessage)| {
            // If the queue does not know the claim, it accepts any number.
            let is_meant = m.stage == Stage::InFlight && (!is_late || m.claim.is_some());
            is_meant.then_some((*number, m.id, m.claim.unwrap_or_default()))
        };
        let in_flight: Vec<(u128, MessageId, ClaimNo)> = self.model.messages.iter().filter_map(in_flight).collect();
        let chosen = in_flight.get(which.checked_rem(in_flight.len()).unwrap_or_default()).copied();
        if is_late && chosen.is_none() {
            return;
        }
        let settlement = match outcome {
            Outcome::Done(state, has_event) => {
                let event = has_event.then(|| event("message.sent"));
                Settlement::Done(Done { event, ..Done::new(state, b"{\"report\": 1}".to_vec()) })
            }
            Outcome::Corrupt => Settlement::Corrupt { report: b"{}".to_vec() },
            Outcome::Defer(pause) => again(self.model.now + pause),
            Outcome::Record => Settlement::Record { progress: b"recorded".to_vec() },
            Outcome::Release => Settlement::Release,
        };
        // If no message is in flight, settles one whose claim has ended, which must be ignored.
        let ended = || self.model.messages.values().next().map_or(MessageId::from(1), |m| m.id);
        let (id, claim) = chosen.map_or_else(
            || (ended(), ClaimNo::FIRST),
            |(_, id, claim)| (id, ClaimNo::from(claim.get() + u64::from(is_late))),
        );
        let answer = self.queue().settle(vec![Settled { id, claim, settlement }], self.now()).await;
        match chosen {
            Some((number, ..)) if !is_late => {
                assert_eq!(answer, Ok(()));
                self.model.settle(number, outcome);
            }
            _ => assert_eq!(answer.is_ok(), !matches!(outcome, Outcome::Record), "{answer:?}"),
        }
    }

    /// The messages to a user.
    fn of(&mut self, user: Option<u128>) -> impl Iterator<Item = &mut KnownMessage> {
        let is_meant = move |number: &u128| user.is_none_or(|user| number % 7 == user);
        self.model.messages.iter_mut().filter(move |(number, _)| is_meant(number)).map(|(_, message)| message)
    }

    async fn turn(&mut self, batch: usize, turn: BatchChange) {
        let uuid = batch_uuid(batch);
        let answer = match turn {
            BatchChange::Complete => self.queue().complete_batch(uuid).await,
            BatchChange::Pause => self.queue().pause_batch(uuid).await,
            BatchChange::Resume => self.queue().resume_batch(uuid).await,
            BatchChange::Cancel => self.queue().cancel_batch(uuid, self.now()).await,
        };
        let now = self.model.now;
        let Some(batch_model) = &mut self.model.batches[batch] else {
            return assert_eq!(answer, Err(QueueError::Unknown("batch")));
        };
        let is_queued = |m: &KnownMessage| m.priority == batch_model.priority && m.state() == State::Queued;
        let is_done = batch_model.state == BatchState::Sending && !self.model.messages.values().any(is_queued);
        batch_model.state = match (turn, batch_model.state) {
            (BatchChange::Pause, state) if is_done => state,
            (BatchChange::Complete, BatchState::Receiving) | (BatchChange::Resume, BatchState::Paused) => {
                BatchState::Sending
            }
            (BatchChange::Pause, BatchState::Receiving | BatchState::Sending) => BatchState::Paused,
            (BatchChange::Cancel, _) => BatchState::Cancelled,
            (_, state) => state,
        };
        if matches!(turn, BatchChange::Cancel) {
            let priority = batch_model.priority;
            let is_cancelled = |m: &&mut KnownMessage| m.priority == priority && matches!(m.stage, Stage::Waiting(_));
            self.model.messages.values_mut().filter(is_cancelled).for_each(|m| m.settle(State::Cancelled, b"", now));
        }
        assert_eq!(answer.map(|batch| batch.uuid), Ok(uuid));
    }

    async fn deliver(&mut self, again: Option<i64>) {
        let now = self.model.now;
        let deliveries = self.queue().webhook_deliveries(WEBHOOK.to_owned(), 1, self.now()).await.expect("asked");
        let due = |event: &&mut KnownEvent| event.delivery.is_some_and(|(due, _)| due <= now);
        let first =
            self.model.events.iter_mut().filter(due).min_by_key(|event| (event.delivery.map(|c| c.0), event.id));
        assert_eq!(deliveries.first().map(|delivery| delivery.event.id), first.as_ref().map(|event| event.id));
        let Some(event) = first else { return };
        let (id, attempts) = (event.id, event.delivery.map_or(0, |delivery| delivery.1));
        assert_eq!(deliveries[0].attempts, attempts);
        event.delivery = again.map(|pause| (now + pause, attempts + 1));
        let noted = match again {
            None => self.queue().end_webhook_delivery(WEBHOOK.to_owned(), id).await,
            Some(pause) => self.queue().retry_webhook_delivery(WEBHOOK.to_owned(), id, at(now + pause)).await,
        };
        assert_eq!(noted, Ok(()));
    }

    /// Compares everything that can be read.
    async fn compare(&self) {
        let (queue, model) = (self.queue(), &self.model);
        let mut expected: Vec<(&u128, &KnownMessage)> = model.messages.iter().collect();
        expected.sort_unstable_by_key(|(_, m)| -m.id.get());
        let page = queue.messages(Filter::default(), None, 1_000).await.expect("asked");
        assert_eq!(page.messages.len(), expected.len());
        for (stored, (number, m)) in page.messages.iter().zip(&expected) {
            assert_eq!((stored.uuid.as_u128(), stored.id, stored.state), (**number, m.id, m.state()));
            assert_eq!((stored.accepted, stored.settled), (at(m.accepted), m.settled().map(at)));
            let due = if let Stage::Waiting(due) = m.stage { Some(at(due)) } else { None };
            assert_eq!((stored.due, stored.is_in_flight), (due, m.stage == Stage::InFlight), "{number}: {m:?}");
            assert_eq!(stored.report, m.report);
            let batch = model.batches.iter().position(|batch_model| {
                batch_model.as_ref().is_some_and(|batch_model| batch_model.priority == m.priority)
            });
            assert_eq!(stored.batch, batch.map(batch_uuid));
        }
        if let Some((number, m)) = expected.get(model.now.unsigned_abs() as usize % expected.len().max(1)) {
            let stored = queue.message(Uuid::from_u128(**number)).await.expect("asked").expect("it is kept");
            assert_eq!((stored.body.is_some(), &stored.progress), (m.has_body, &m.progress), "{number}: {m:?}");
        }
        self.compare_batches().await;
        let stats = queue.stats().await.expect("asked");
        let waiting = |is: fn(Priority) -> bool| {
            model.messages.values().filter(|m| is(m.priority) && matches!(m.stage, Stage::Waiting(_))).count() as u64
        };
        let oldest = model.messages.values().filter(|m| m.state() == State::Queued).min_by_key(|m| m.id);
        let expected = Stats {
            waiting_transactional: waiting(|priority| priority == TRANSACTIONAL),
            waiting_ordinary: waiting(|priority| priority == ORDINARY),
            waiting_batches: waiting(|priority| priority > ORDINARY),
            in_flight: model.messages.values().filter(|m| m.stage == Stage::InFlight).count() as u64,
            suspects: model.messages.values().filter(|m| m.is_suspect).count() as u64,
            damaged: 0,
            dead: model.messages.values().filter(|m| m.state().is_dead()).count() as u64,
            oldest: oldest.map(|m| at(m.accepted)),
            bytes: stats.bytes,
            webhook_deliveries: model.events.iter().filter(|event| event.delivery.is_some()).count() as u64,
            rates: stats.rates,
        };
        assert_eq!(stats, expected);
        let events = queue.events(EventId::START, 1_000).await.expect("asked");
        assert_eq!((events.last, events.pruned), (model.last_event, model.pruned));
        let seen: Vec<(EventId, Timestamp)> = events.events.iter().map(|event| (event.id, event.at)).collect();
        assert_eq!(seen, model.events.iter().map(|event| (event.id, at(event.at))).collect::<Vec<_>>());
    }

    async fn compare_batches(&self) {
        for (batch, batch_model) in self.model.batches.iter().enumerate() {
            let stored = self.queue().batch(batch_uuid(batch)).await.expect("asked");
            let Some(batch_model) = batch_model else {
                assert_eq!(stored, None);
                continue;
            };
            let mut by_state = BTreeMap::new();
            for message in self.model.messages.values().filter(|m| m.priority == batch_model.priority) {
                *by_state.entry(message.state()).or_insert(0) += 1;
            }
            let state = match batch_model.state {
                BatchState::Sending if !by_state.contains_key(&State::Queued) => BatchState::Done,
                other => other,
            };
            let stored = stored.expect("it is kept");
            assert_eq!((stored.state, stored.messages), (state, by_state.values().sum()));
            assert_eq!(stored.by_state, by_state);
        }
    }
}

fn of_user(user: Option<u128>) -> Selection {
    let filter = Filter { user: user.map(|n| n.to_string()), ..Filter::default() };
    Selection { filter, ..Selection::default() }
}

/// A message of a batch that was cancelled while the message was in flight, and whose process ended three times, is cancelled.
///
/// Blocks, with its own runtime.
pub(super) fn a_suspect_of_a_cancelled_batch_is_cancelled(new_harness: NewHarness<'_>) {
    let accept = Op::Accept { first: 0, count: 1, priority: 2, not_before: None, other: true, claim: true };
    let claim = Op::Claim { max: 1, bulk_max: 1 };
    let end = Op::Reopen { is_clean: false };
    let cancel = Op::Batch(0, BatchChange::Cancel);
    let ops = [accept, end.clone(), claim.clone(), cancel, end.clone(), claim, end, Op::Clock(1), Op::ClaimSuspect];
    run(new_harness, ops);
}

fn run(new_harness: NewHarness<'_>, ops: impl IntoIterator<Item = Op>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut comparison = Comparison::new(new_harness).await;
        for op in ops {
            comparison.step(op).await;
        }
    });
}

/// The property: after any sequence of operations, the queue agrees with the model.
///
/// Blocks, with its own runtime.
pub(super) fn the_queue_does_what_the_model_does(new_harness: NewHarness<'_>) {
    let config = Config { cases: 96, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let tested = TestRunner::new(config).run(&vec(op(), 1..90), |ops| {
        run(new_harness, ops);
        Ok(())
    });
    tested.unwrap_or_else(|e| panic!("{e}"));
}
