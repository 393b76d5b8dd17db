//! Random work at the queue's front beside a model that keeps everything in memory: after each step both say the same. The
//! clock jumps, leases end, and the file is opened anew in between.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

const NUMBERS: u128 = 24;
const HOUR: i64 = 3_600;
const MESSAGES_MAX: usize = 14;
const SETTLED_MAX: usize = 9;
const RETENTION: i64 = 6 * HOUR;
const DEAD_RETENTION: i64 = 2 * HOUR;
const EVENT_RETENTION: i64 = HOUR;
const HOOK: &str = "audit";

#[derive(Debug, Clone)]
enum Op {
    /// `lane`: transactional, ordinary, or one of two batches. `other`: with other content.
    Accept {
        first: u128,
        count: u128,
        priority: usize,
        not_before: Option<i64>,
        other: bool,
        claim: bool,
    },
    Claim {
        max: usize,
        bulk_max: usize,
    },
    Settle {
        which: usize,
        how: How,
    },
    SettleLate {
        which: usize,
        how: How,
    },
    Retry(u128),
    Discard(u128),
    Cancel(u128),
    RetryAll(Option<u128>),
    DiscardAll(Option<u128>),
    Batch(usize, Turn),
    Forget {
        user: Option<u128>,
        email: Option<u128>,
    },
    Call {
        again: Option<i64>,
    },
    KeepUp,
    LeasesEnd,
    Clock(i64),
    ClaimSuspect,
    /// `is_clean`: the process was asked to end.
    Reopen {
        is_clean: bool,
    },
    /// A write that the disk does not take.
    Fail,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Done(State, bool),
    Again(i64),
    Record,
    Back,
    Corrupt,
}

#[derive(Debug, Clone, Copy)]
enum Turn {
    Complete,
    Pause,
    Resume,
    Cancel,
}

fn op() -> impl Strategy<Value = Op> {
    let number = || 0..NUMBERS;
    let accept = (number(), 1_u128..5, 0_usize..4, option::weighted(0.3, 0..2 * HOUR), 0..20, any::<bool>());
    let turn = prop_oneof![Just(Turn::Complete), Just(Turn::Pause), Just(Turn::Resume), Just(Turn::Cancel)];
    prop_oneof![
        8 => accept.prop_map(|(first, count, priority, not_before, other, claim)| Op::Accept {
            first, count, priority, not_before, other: other == 0, claim: claim && not_before.is_none()
        }),
        8 => (0_usize..12, 0_usize..12).prop_map(|(max, bulk_max)| Op::Claim { max, bulk_max }),
        10 => (any::<usize>(), how()).prop_map(|(which, how)| Op::Settle { which, how }),
        2 => (any::<usize>(), how()).prop_map(|(which, how)| Op::SettleLate { which, how }),
        1 => number().prop_map(Op::Retry),
        1 => number().prop_map(Op::Discard),
        2 => number().prop_map(Op::Cancel),
        1 => option::of(0_u128..7).prop_map(Op::RetryAll),
        1 => option::of(0_u128..7).prop_map(Op::DiscardAll),
        3 => (0_usize..2, turn).prop_map(|(batch, turn)| Op::Batch(batch, turn)),
        1 => (option::of(0_u128..7), option::of(0_u128..7)).prop_map(|(user, email)| Op::Forget { user, email }),
        2 => option::of(0..2 * HOUR).prop_map(|again| Op::Call { again }),
        2 => Just(Op::KeepUp),
        1 => Just(Op::LeasesEnd),
        4 => prop_oneof![4 => 0..600_i64, 1 => -5 * HOUR..0, 1 => 0..8 * HOUR].prop_map(Op::Clock),
        2 => Just(Op::ClaimSuspect),
        4 => (0..3).prop_map(|n| Op::Reopen { is_clean: n == 0 }),
        1 => Just(Op::Fail),
    ]
}

fn how() -> impl Strategy<Value = How> {
    let state = prop_oneof![
        Just(State::Sent),
        Just(State::MaybeSent),
        Just(State::NotSent),
        Just(State::Failed),
        Just(State::Expired)
    ];
    prop_oneof![
        5 => (state, any::<bool>()).prop_map(|(state, is_told)| How::Done(state, is_told)),
        3 => (0..HOUR).prop_map(How::Again),
        1 => Just(How::Record),
        1 => Just(How::Back),
        1 => Just(How::Corrupt),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting(i64),
    InFlight,
    Settled(State, i64),
}

/// A message as the model knows it.
#[derive(Debug, Clone)]
struct Known {
    id: MessageId,
    priority: Priority,
    other: bool,
    accepted: i64,
    place: Place,
    has_body: bool,
    progress: Option<Vec<u8>>,
    report: Option<Vec<u8>>,
    in_doubt: bool,
    /// Processes that ended unexpectedly with it, and nothing came of it since.
    interruptions: u32,
    /// It waits to be tried alone.
    is_suspect: bool,
    /// Its worker is not heard of any more.
    is_lost: bool,
    /// The claim it is under way by, where the queue knows that.
    claim: Option<ClaimNo>,
}

impl Known {
    fn state(&self) -> State {
        match self.place {
            Place::Settled(state, _) => state,
            _ => State::Queued,
        }
    }

    fn settled(&self) -> Option<i64> {
        match self.place {
            Place::Settled(_, at) => Some(at),
            _ => None,
        }
    }

    fn settle(&mut self, state: State, report: &[u8], now: i64) {
        self.place = Place::Settled(state, now);
        (self.progress, self.report) = (None, Some(report.to_vec()));
        self.is_suspect = false;
        self.has_body = state.is_dead();
    }

    fn can_be_retried(&self) -> bool {
        matches!(self.state(), State::Failed | State::Expired) && self.has_body
    }

    fn retry(&mut self, now: i64) {
        self.place = Place::Waiting(now);
        (self.progress, self.report) = (None, None);
        (self.in_doubt, self.interruptions) = (false, 0);
    }

    fn discard(&mut self) {
        if let Place::Settled(state, _) = &mut self.place {
            *state = State::Discarded;
        }
        self.has_body = false;
    }
}

struct Lot {
    priority: Priority,
    state: BatchState,
    begun: i64,
}

struct Told {
    id: EventId,
    at: i64,
    number: u128,
    /// When it is called, and how often that failed; `None` once it was taken.
    call: Option<(i64, u32)>,
}

struct Model {
    now: i64,
    /// What the clock said when the queue looked last.
    clock: Option<i64>,
    messages: BTreeMap<u128, Known>,
    batches: [Option<Lot>; 2],
    events: Vec<Told>,
    last_event: EventId,
    /// The latest event that was thrown out for its age.
    pruned: EventId,
}

fn batch_uuid(batch: usize) -> Uuid {
    Uuid::from_u128(1_000_000 + batch as u128)
}

/// The message of this number, in either of its contents.
fn written(number: u128, priority: Priority, other: bool) -> New {
    let mut new = new(number, priority);
    if other {
        new.body.push(b' ');
        new.digest = digest(&new.body);
    }
    new
}

impl Model {
    fn unsettled(&self) -> usize {
        self.messages.values().filter(|m| m.state() == State::Queued).count()
    }

    fn is_paused(&self, priority: Priority) -> bool {
        self.batches.iter().flatten().any(|lot| lot.priority == priority && lot.state == BatchState::Paused)
    }

    /// What is due in a lane, as it is to be handed out.
    fn due(&self, priority: Priority) -> Vec<u128> {
        let mut due: Vec<(i64, MessageId, u128)> = self
            .messages
            .iter()
            .filter_map(|(number, m)| match m.place {
                Place::Waiting(at) if m.priority == priority && !m.is_suspect && at <= self.now => {
                    Some((at, m.id, *number))
                }
                _ => None,
            })
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(.., number)| number).collect()
    }

    fn erase(&mut self, number: u128) {
        self.messages.remove(&number);
        self.events.retain(|told| told.number != number);
    }

    /// A clock that was set back: what was due stays due, and pauses stay as long as they were.
    fn follow_clock(&mut self) {
        let (now, last) = (self.now, self.clock.replace(self.now));
        let Some(was) = last.filter(|was| now + 2 < *was) else { return };
        for message in self.messages.values_mut() {
            if let Place::Waiting(due) = &mut message.place {
                if *due > now && *due <= was {
                    *due = now;
                } else if *due > was && (message.is_suspect || message.progress.is_some()) && *due - was <= HOUR {
                    *due -= was - now;
                }
            }
        }
        for (due, _) in self.events.iter_mut().filter_map(|told| told.call.as_mut()) {
            if *due > now {
                *due = now.max(*due - (was - now));
            }
        }
    }

    fn come_back(&mut self, is_unclean: bool, which: impl Fn(&Known) -> bool) {
        for message in self.messages.values_mut().filter(|m| m.place == Place::InFlight && which(m)) {
            message.interruptions += u32::from(is_unclean);
            message.is_suspect = message.interruptions >= 3;
            let pause = match message.interruptions {
                3 | 4 => 1 << (message.interruptions - 3),
                _ => 0,
            };
            (message.place, message.in_doubt, message.is_lost) = (Place::Waiting(self.now + pause), true, false);
        }
    }

    /// The suspects that may be tried, the earliest first: when they are due, and their numbers.
    fn suspects(&self) -> Vec<(i64, u128)> {
        let mut suspects: Vec<(i64, MessageId, u128)> = self
            .messages
            .iter()
            .filter(|(_, m)| m.is_suspect && !self.is_paused(m.priority))
            .filter_map(|(number, m)| if let Place::Waiting(due) = m.place { Some((due, m.id, *number)) } else { None })
            .collect();
        suspects.sort_unstable();
        suspects.into_iter().map(|(due, _, number)| (due, number)).collect()
    }

    fn claim_suspect(&mut self, claimed: Option<&Claimed>) {
        let due = self.suspects().into_iter().find(|(due, _)| *due <= self.now).map(|(_, number)| number);
        assert_eq!(claimed.map(|claimed| claimed.uuid.as_u128()), due);
        let (Some(number), Some(claimed)) = (due, claimed) else { return };
        let message = self.messages.get_mut(&number).expect("it is there");
        assert_eq!((claimed.id, claimed.priority, claimed.is_in_doubt()), (message.id, message.priority, true));
        assert_eq!((claimed.interruptions, claimed.is_culprit), (message.interruptions, message.interruptions >= 5));
        assert!(claimed.interrupted.len() >= claimed.interruptions as usize, "each end has its moment");
        (message.place, message.claim, message.is_suspect) = (Place::InFlight, Some(claimed.claim), false);
    }

    fn claim(&mut self, claim: Claim, handed: &ClaimedBatch) {
        let claimed = &handed.messages;
        self.follow_clock();
        self.come_back(false, |m| m.is_lost);
        let all = numbers(claimed);
        let mut urgent = self.due(TRANSACTIONAL);
        urgent.truncate(claim.max);
        let (first, bulk) = all.split_at(urgent.len().min(all.len()));
        assert_eq!(first, urgent, "transactional messages are first, the earliest first");

        let priorities: Vec<Priority> = std::iter::once(ORDINARY)
            .chain(self.batches.iter().flatten().map(|lot| lot.priority))
            .filter(|priority| !self.is_paused(*priority))
            .collect();
        let due: Vec<Vec<u128>> = priorities.iter().map(|priority| self.due(*priority)).collect();
        let total: usize = due.iter().map(Vec::len).sum();
        assert_eq!(bulk.len(), total.min(claim.bulk_max).min(claim.max - urgent.len()), "as many as there may be");
        let mut taken = Vec::new();
        for (priority, due) in priorities.iter().zip(&due) {
            let of_lane: Vec<u128> = bulk.iter().copied().filter(|n| self.messages[n].priority == *priority).collect();
            assert_eq!(of_lane, due[..of_lane.len()], "{priority:?}: the earliest first");
            taken.push((of_lane.len(), of_lane.len() < due.len()));
        }
        for (n, _) in &taken {
            assert!(taken.iter().all(|(m, is_more)| !is_more || n.saturating_sub(*m) <= 8), "in turns: {taken:?}");
        }

        for claimed in claimed {
            let number = claimed.uuid.as_u128();
            let message = self.messages.get_mut(&number).expect("one that waits");
            assert_eq!(
                (claimed.id, claimed.priority, claimed.is_in_doubt()),
                (message.id, message.priority, message.in_doubt)
            );
            assert_eq!((&claimed.progress, claimed.accepted), (&message.progress, at(message.accepted)));
            assert_eq!(claimed.body, written(number, ORDINARY, message.other).body);
            (message.place, message.claim) = (Place::InFlight, Some(claimed.claim));
        }
        let earliest = |priorities: &[Priority]| {
            let waiting = self.messages.values().filter(|m| priorities.contains(&m.priority) && !m.is_suspect);
            waiting.filter_map(|m| if let Place::Waiting(due) = m.place { Some(due) } else { None }).min()
        };
        let of_turn = |is_full: bool, priorities: &[Priority]| {
            if is_full { Some(self.now) } else { earliest(priorities) }.map(at)
        };
        let bulk_lanes = if claim.bulk_max > 0 { priorities } else { Vec::new() };
        let all = [vec![TRANSACTIONAL], bulk_lanes].concat();
        assert_eq!(handed.next, of_turn(claimed.len() == claim.max, &all), "when to come back");
        let transactional = of_turn(urgent.len() == claim.max, &[TRANSACTIONAL]);
        assert_eq!(handed.next_transactional, transactional, "when to come back for what is transactional");
        assert_eq!(handed.next_suspect, self.suspects().first().map(|(due, _)| at(*due)), "when a suspect is due");
    }

    fn settle(&mut self, number: u128, how: How) {
        let now = self.now;
        let is_cancelled =
            |lot: &Lot| lot.priority == self.messages[&number].priority && lot.state == BatchState::Cancelled;
        let is_cancelled = self.batches.iter().flatten().any(is_cancelled);
        let message = self.messages.get_mut(&number).expect("one that is under way");
        message.is_lost &= matches!(how, How::Record);
        match how {
            How::Done(state, is_told) => {
                message.settle(state, b"{\"report\": 1}", now);
                if is_told {
                    self.last_event.0 += 1;
                    self.events.push(Told { id: self.last_event, at: now, number, call: Some((now, 0)) });
                }
            }
            How::Corrupt => message.settle(State::Corrupt, b"{}", now),
            How::Again(_) | How::Back if is_cancelled => message.settle(State::Cancelled, b"", now),
            How::Again(pause) => {
                (message.place, message.in_doubt, message.interruptions) = (Place::Waiting(now + pause), false, 0);
                message.progress = Some(b"half-way".to_vec());
            }
            How::Record => message.progress = Some(b"recorded".to_vec()),
            How::Back => message.place = Place::Waiting(now),
        }
    }

    fn prune(&mut self) {
        let (now, mut gone) = (self.now, Vec::new());
        let mut settled: Vec<(i64, MessageId, u128)> =
            self.messages.iter().filter_map(|(number, m)| Some((m.settled()?, m.id, *number))).collect();
        settled.sort_unstable();
        let aged = settled.iter().take_while(|(at, ..)| *at < now - RETENTION).count();
        let surplus = settled.len().saturating_sub(SETTLED_MAX);
        gone.extend(settled[..aged.max(surplus)].iter().map(|(.., number)| *number));
        gone.into_iter().for_each(|number| self.erase(number));
        for message in self.messages.values_mut() {
            if message.state().is_dead() && message.settled().is_some_and(|at| at < now - DEAD_RETENTION) {
                message.has_body = false;
            }
        }
        let is_kept = |told: &Told| told.call.is_some() || told.at >= now - EVENT_RETENTION;
        let gone = self.events.iter().filter(|told| !is_kept(told)).map(|told| told.id);
        self.pruned = gone.max().map_or(self.pruned, |id| id.max(self.pruned));
        self.events.retain(is_kept);
        for lot in &mut self.batches {
            let is_empty = |priority| !self.messages.values().any(|m| m.priority == priority);
            lot.take_if(|lot| lot.begun < now - RETENTION && is_empty(lot.priority));
        }
    }
}

/// The queue and its model.
struct Pair {
    home: Home,
    queue: Option<Queue>,
    model: Model,
}

impl Pair {
    async fn new() -> Pair {
        let model = Model {
            now: 1_000 * HOUR,
            clock: None,
            messages: BTreeMap::new(),
            batches: [None, None],
            events: Vec::new(),
            last_event: EventId::START,
            pruned: EventId::START,
        };
        let mut pair = Pair { home: Home::new(), queue: None, model };
        pair.open().await;
        pair
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
        let queue = Queue::open(&settings, at(self.model.now)).unwrap_or_else(|e| panic!("{e}"));
        queue.set_webhooks(vec![HOOK.to_owned()]).await.expect("set");
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
                    ..written(n, priority, other)
                });
                self.accept(news.collect(), not_before, other).await;
            }
            Op::Claim { max, bulk_max } => {
                let claim = Claim { max, bulk_max };
                let handed = self.queue().claim(claim, self.now()).await.expect("claimed");
                self.model.claim(claim, &handed);
            }
            Op::Settle { which, how } => self.settle(which, how, false).await,
            Op::SettleLate { which, how } => self.settle(which, how, true).await,
            Op::Retry(number) => {
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
            Op::Discard(number) => {
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
            Op::Cancel(number) => {
                let answer = self.queue().cancel(Uuid::from_u128(number), self.now()).await;
                let now = self.model.now;
                match self.model.messages.get_mut(&number) {
                    None => assert_eq!(answer, Err(QueueError::Unknown("message"))),
                    Some(message) if matches!(message.place, Place::Waiting(_)) => {
                        assert_eq!(answer, Ok(()));
                        message.settle(State::Cancelled, b"", now);
                    }
                    Some(_) => assert!(matches!(answer, Err(QueueError::State(_))), "{answer:?}"),
                }
            }
            Op::RetryAll(user) => {
                let changed = self.queue().retry_all(of_user(user), self.now()).await;
                let now = self.model.now;
                let mut n = 0;
                for message in self.of(user).filter(|m| m.can_be_retried()) {
                    message.retry(now);
                    n += 1;
                }
                assert_eq!(changed, Ok(n), "tried again");
            }
            Op::DiscardAll(user) => {
                let changed = self.queue().discard_all(of_user(user)).await;
                let mut n = 0;
                for message in self.of(user).filter(|m| m.state().is_dead()) {
                    message.discard();
                    n += 1;
                }
                assert_eq!(changed, Ok(n), "discarded");
            }
            Op::Batch(batch, turn) => self.turn(batch, turn).await,
            Op::Forget { user, email } => {
                let (by_user, by_email) = (user.map(|n| n.to_string()), email.map(|n| format!("USER{n}@example.com")));
                let forgotten = self.queue().erase(by_user, by_email).await.expect("forgotten");
                let mut expected = Erased::default();
                let is_meant = |number: &u128| [user, email].contains(&Some(*number % 7));
                for number in self.model.messages.keys().copied().filter(is_meant).collect::<Vec<_>>() {
                    match self.model.messages[&number].place {
                        Place::Waiting(_) => expected.waiting += 1,
                        Place::InFlight => expected.in_flight += 1,
                        Place::Settled(..) => expected.settled += 1,
                    }
                    self.model.erase(number);
                }
                assert_eq!(forgotten, expected);
            }
            Op::Call { again } => self.call(again).await,
            Op::KeepUp => {
                self.queue().maintain(self.now()).await.expect("maintained");
                self.model.prune();
            }
            Op::LeasesEnd => {
                sqlite(self.queue()).age_leases(LEASE).await;
                self.model.messages.values_mut().for_each(|m| m.is_lost = m.place == Place::InFlight);
            }
            Op::Clock(by) => self.model.now += by,
            Op::Fail => {
                sqlite(self.queue()).fail_next_write();
                assert!(self.queue().accept(vec![new(NUMBERS, ORDINARY)], self.now()).await.is_err());
                sqlite(self.queue()).fail_next_write();
                assert!(self.queue().claim(Claim { max: 9, bulk_max: 9 }, self.now()).await.is_err());
                // A lease that ended, which was not written down, is a new one.
                for message in self.model.messages.values_mut().filter(|m| m.is_lost) {
                    (message.is_lost, message.claim) = (false, None);
                }
            }
            Op::ClaimSuspect => {
                let claimed = self.queue().claim_suspect(self.now()).await.expect("claimed");
                self.model.claim_suspect(claimed.as_ref());
            }
            Op::Reopen { is_clean } => {
                if is_clean {
                    self.queue().note_shutdown().await.expect("noted");
                }
                self.open().await;
                let latest = self.model.messages.values().max_by_key(|m| m.id).map(|m| m.accepted);
                self.model.clock = latest.max(self.model.messages.values().filter_map(Known::settled).max());
                self.model.come_back(!is_clean, |_| true);
            }
        }
        self.compare().await;
    }

    /// The number of a lane; a batch is begun, or found again.
    async fn priority(&mut self, which: usize) -> Priority {
        let Some(batch) = which.checked_sub(2) else { return Priority(which as i64) };
        let kind = b"kind".to_vec();
        let begun = self.queue().create_batch(new_batch(batch_uuid(batch), kind), self.now()).await.expect("begun");
        let now = self.model.now;
        let lot = self.model.batches[batch].get_or_insert(Lot {
            priority: begun.priority,
            state: BatchState::Receiving,
            begun: now,
        });
        assert_eq!((begun.priority, begun.created), (lot.priority, at(lot.begun)));
        let priorities: Vec<Priority> = self.model.batches.iter().flatten().map(|lot| lot.priority).collect();
        assert!(priorities.len() < 2 || priorities[0] != priorities[1], "a class of its own");
        begun.priority
    }

    async fn accept(&mut self, news: Vec<New>, not_before: Option<i64>, other: bool) {
        let answer = self.queue().accept(news.clone(), self.now()).await;
        let unsettled = self.model.unsettled();
        let is_closed = |lot: &Lot| lot.priority == news[0].priority && lot.state == BatchState::Cancelled;
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
                    assert!(self.model.messages.values().all(|m| m.id < id), "a number of its own, and the highest");
                    let due = now + not_before.unwrap_or_default();
                    let place = if new.claim { Place::InFlight } else { Place::Waiting(due) };
                    let known = Known {
                        id,
                        priority: new.priority,
                        other,
                        accepted: now,
                        place,
                        has_body: true,
                        progress: None,
                        report: None,
                        in_doubt: false,
                        interruptions: 0,
                        is_suspect: false,
                        is_lost: false,
                        claim: Some(ClaimNo::FIRST),
                    };
                    self.model.messages.insert(number, known);
                }
                (known, accepted) => panic!("{accepted:?}, and it is {known:?}"),
            }
        }
    }

    /// `is_late`: by a claim that has ended, after which nothing comes of it.
    async fn settle(&mut self, which: usize, how: How, is_late: bool) {
        let in_flight = |(number, m): (&u128, &Known)| {
            // Where the queue does not know the claim it takes any.
            let is_meant = m.place == Place::InFlight && (!is_late || m.claim.is_some());
            is_meant.then_some((*number, m.id, m.claim.unwrap_or_default()))
        };
        let in_flight: Vec<(u128, MessageId, ClaimNo)> = self.model.messages.iter().filter_map(in_flight).collect();
        let chosen = in_flight.get(which.checked_rem(in_flight.len()).unwrap_or_default()).copied();
        if is_late && chosen.is_none() {
            return;
        }
        let settlement = match how {
            How::Done(state, is_told) => {
                let event = is_told.then(|| event("message.sent"));
                Settlement::Done { state, report: b"{\"report\": 1}".to_vec(), event, kept: None }
            }
            How::Corrupt => Settlement::Corrupt { report: b"{}".to_vec() },
            How::Again(pause) => again(self.model.now + pause),
            How::Record => Settlement::Record { progress: b"recorded".to_vec() },
            How::Back => Settlement::Release,
        };
        // Without one that is under way it is one whose claim has ended, and nothing comes of it.
        let ended = || self.model.messages.values().next().map_or(MessageId(1), |m| m.id);
        let (id, claim) = chosen
            .map_or_else(|| (ended(), ClaimNo::FIRST), |(_, id, claim)| (id, ClaimNo(claim.0 + u64::from(is_late))));
        let answer = self.queue().settle(vec![Settled { id, claim, settlement }], self.now()).await;
        match chosen {
            Some((number, ..)) if !is_late => {
                assert_eq!(answer, Ok(()));
                self.model.settle(number, how);
            }
            _ => assert_eq!(answer.is_ok(), !matches!(how, How::Record), "{answer:?}"),
        }
    }

    /// The messages to a user.
    fn of(&mut self, user: Option<u128>) -> impl Iterator<Item = &mut Known> {
        let is_meant = move |number: &u128| user.is_none_or(|user| number % 7 == user);
        self.model.messages.iter_mut().filter(move |(number, _)| is_meant(number)).map(|(_, message)| message)
    }

    async fn turn(&mut self, batch: usize, turn: Turn) {
        let uuid = batch_uuid(batch);
        let answer = match turn {
            Turn::Complete => self.queue().complete_batch(uuid).await,
            Turn::Pause => self.queue().pause_batch(uuid).await,
            Turn::Resume => self.queue().resume_batch(uuid).await,
            Turn::Cancel => self.queue().cancel_batch(uuid, self.now()).await,
        };
        let now = self.model.now;
        let Some(lot) = &mut self.model.batches[batch] else {
            return assert_eq!(answer, Err(QueueError::Unknown("batch")));
        };
        let is_queued = |m: &Known| m.priority == lot.priority && m.state() == State::Queued;
        let is_done = lot.state == BatchState::Sending && !self.model.messages.values().any(is_queued);
        lot.state = match (turn, lot.state) {
            (Turn::Pause, state) if is_done => state,
            (Turn::Complete, BatchState::Receiving) | (Turn::Resume, BatchState::Paused) => BatchState::Sending,
            (Turn::Pause, BatchState::Receiving | BatchState::Sending) => BatchState::Paused,
            (Turn::Cancel, _) => BatchState::Cancelled,
            (_, state) => state,
        };
        if matches!(turn, Turn::Cancel) {
            let priority = lot.priority;
            let is_taken = |m: &&mut Known| m.priority == priority && matches!(m.place, Place::Waiting(_));
            self.model.messages.values_mut().filter(is_taken).for_each(|m| m.settle(State::Cancelled, b"", now));
        }
        assert_eq!(answer.map(|batch| batch.uuid), Ok(uuid));
    }

    async fn call(&mut self, again: Option<i64>) {
        let now = self.model.now;
        let calls = self.queue().webhook_deliveries(HOOK.to_owned(), 1, self.now()).await.expect("asked");
        let due = |told: &&mut Told| told.call.is_some_and(|(due, _)| due <= now);
        let first = self.model.events.iter_mut().filter(due).min_by_key(|told| (told.call.map(|c| c.0), told.id));
        assert_eq!(calls.first().map(|call| call.event.id), first.as_ref().map(|told| told.id));
        let Some(told) = first else { return };
        let (id, attempts) = (told.id, told.call.map_or(0, |call| call.1));
        assert_eq!(calls[0].attempts, attempts);
        told.call = again.map(|pause| (now + pause, attempts + 1));
        let noted = match again {
            None => self.queue().end_webhook_delivery(HOOK.to_owned(), id).await,
            Some(pause) => self.queue().retry_webhook_delivery(HOOK.to_owned(), id, at(now + pause)).await,
        };
        assert_eq!(noted, Ok(()));
    }

    /// Everything that can be read.
    async fn compare(&self) {
        let (queue, model) = (self.queue(), &self.model);
        let mut expected: Vec<(&u128, &Known)> = model.messages.iter().collect();
        expected.sort_unstable_by_key(|(_, m)| -m.id.0);
        let page = queue.messages(Filter::default(), None, 1_000).await.expect("asked");
        assert_eq!(page.messages.len(), expected.len());
        for (stored, (number, m)) in page.messages.iter().zip(&expected) {
            assert_eq!((stored.uuid.as_u128(), stored.id, stored.state), (**number, m.id, m.state()));
            assert_eq!((stored.accepted, stored.settled), (at(m.accepted), m.settled().map(at)));
            let due = if let Place::Waiting(due) = m.place { Some(at(due)) } else { None };
            assert_eq!((stored.due, stored.is_in_flight), (due, m.place == Place::InFlight), "{number}: {m:?}");
            assert_eq!(stored.report, m.report);
            let batch = model.batches.iter().position(|lot| lot.as_ref().is_some_and(|lot| lot.priority == m.priority));
            assert_eq!(stored.batch, batch.map(batch_uuid));
        }
        if let Some((number, m)) = expected.get(model.now.unsigned_abs() as usize % expected.len().max(1)) {
            let stored = queue.message(Uuid::from_u128(**number)).await.expect("asked").expect("it is kept");
            assert_eq!((stored.body.is_some(), &stored.progress), (m.has_body, &m.progress), "{number}: {m:?}");
        }
        self.compare_batches().await;
        let stats = queue.stats().await.expect("asked");
        let waiting = |is: fn(Priority) -> bool| {
            model.messages.values().filter(|m| is(m.priority) && matches!(m.place, Place::Waiting(_))).count() as u64
        };
        let oldest = model.messages.values().filter(|m| m.state() == State::Queued).min_by_key(|m| m.id);
        let expected = Stats {
            waiting_transactional: waiting(|priority| priority == TRANSACTIONAL),
            waiting_ordinary: waiting(|priority| priority == ORDINARY),
            waiting_batches: waiting(|priority| priority > ORDINARY),
            in_flight: model.messages.values().filter(|m| m.place == Place::InFlight).count() as u64,
            suspects: model.messages.values().filter(|m| m.is_suspect).count() as u64,
            damaged: 0,
            dead: model.messages.values().filter(|m| m.state().is_dead()).count() as u64,
            oldest: oldest.map(|m| at(m.accepted)),
            bytes: stats.bytes,
            webhook_deliveries: model.events.iter().filter(|told| told.call.is_some()).count() as u64,
            rates: stats.rates,
        };
        assert_eq!(stats, expected);
        let events = queue.events(EventId::START, 1_000).await.expect("asked");
        assert_eq!((events.last, events.pruned), (model.last_event, model.pruned));
        let seen: Vec<(EventId, Timestamp)> = events.events.iter().map(|event| (event.id, event.at)).collect();
        assert_eq!(seen, model.events.iter().map(|told| (told.id, at(told.at))).collect::<Vec<_>>());
    }

    async fn compare_batches(&self) {
        for (batch, lot) in self.model.batches.iter().enumerate() {
            let stored = self.queue().batch(batch_uuid(batch)).await.expect("asked");
            let Some(lot) = lot else {
                assert_eq!(stored, None);
                continue;
            };
            let mut by_state = BTreeMap::new();
            for message in self.model.messages.values().filter(|m| m.priority == lot.priority) {
                *by_state.entry(message.state()).or_insert(0) += 1;
            }
            let state = match lot.state {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn the_queue_does_what_the_model_does(ops in vec(op(), 1..90)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut pair = Pair::new().await;
            for op in ops {
                pair.step(op).await;
            }
        });
    }
}
