//! A model of the queue, in memory.

use super::*;

pub(super) const HOUR: i64 = 3_600;
pub(super) const SETTLED_MAX: usize = 9;
pub(super) const RETENTION: i64 = 6 * HOUR;
pub(super) const DEAD_RETENTION: i64 = 2 * HOUR;
pub(super) const EVENT_RETENTION: i64 = HOUR;

#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Done(State, bool),
    Defer(i64),
    Record,
    Release,
    Corrupt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting(i64),
    InFlight,
    Settled(State, i64),
}

/// A message in the model.
#[derive(Debug, Clone)]
pub(super) struct KnownMessage {
    pub(super) id: MessageId,
    pub(super) priority: Priority,
    pub(super) other: bool,
    pub(super) accepted: i64,
    pub(super) stage: Stage,
    pub(super) has_body: bool,
    pub(super) progress: Option<Vec<u8>>,
    pub(super) report: Option<Vec<u8>>,
    pub(super) in_doubt: bool,
    /// Processes that ended unexpectedly with it in flight, since its last finished attempt.
    pub(super) interruptions: u32,
    /// It waits to be sent alone.
    pub(super) is_suspect: bool,
    /// Its lease has ended.
    pub(super) has_lost_lease: bool,
    /// The claim that it is in flight with, if the queue knows it.
    pub(super) claim: Option<ClaimNo>,
}

impl KnownMessage {
    pub(super) fn state(&self) -> State {
        match self.stage {
            Stage::Settled(state, _) => state,
            _ => State::Queued,
        }
    }

    pub(super) fn settled(&self) -> Option<i64> {
        match self.stage {
            Stage::Settled(_, at) => Some(at),
            _ => None,
        }
    }

    pub(super) fn settle(&mut self, state: State, report: &[u8], now: i64) {
        self.stage = Stage::Settled(state, now);
        (self.progress, self.report) = (None, Some(report.to_vec()));
        self.is_suspect = false;
        self.has_body = state.is_dead();
    }

    pub(super) fn can_be_retried(&self) -> bool {
        matches!(self.state(), State::Failed | State::Expired) && self.has_body
    }

    pub(super) fn retry(&mut self, now: i64) {
        self.stage = Stage::Waiting(now);
        (self.progress, self.report) = (None, None);
        (self.in_doubt, self.interruptions) = (false, 0);
    }

    pub(super) fn discard(&mut self) {
        if let Stage::Settled(state, _) = &mut self.stage {
            *state = State::Discarded;
        }
        self.has_body = false;
    }
}

pub(super) struct KnownBatch {
    pub(super) priority: Priority,
    pub(super) state: BatchState,
    pub(super) created: i64,
}

pub(super) struct KnownEvent {
    pub(super) id: EventId,
    pub(super) at: i64,
    pub(super) number: u128,
    /// When its delivery is due, and how often it failed; `None` after it was delivered.
    pub(super) delivery: Option<(i64, u32)>,
}

pub(super) struct Model {
    pub(super) now: i64,
    /// The time of the queue's latest claim.
    pub(super) clock: Option<i64>,
    pub(super) messages: BTreeMap<u128, KnownMessage>,
    pub(super) batches: [Option<KnownBatch>; 2],
    pub(super) events: Vec<KnownEvent>,
    pub(super) last_event: EventId,
    /// The latest event that was pruned.
    pub(super) pruned: EventId,
}

pub(super) fn batch_uuid(batch: usize) -> Uuid {
    Uuid::from_u128(1_000_000 + batch as u128)
}

/// The message with a number, in one of two contents.
pub(super) fn new_message(number: u128, priority: Priority, other: bool) -> New {
    let mut new = new(number, priority);
    if other {
        new.body.push(b' ');
        new.digest = digest(&new.body);
    }
    new
}

impl Model {
    pub(super) fn unsettled(&self) -> usize {
        self.messages.values().filter(|m| m.state() == State::Queued).count()
    }

    pub(super) fn is_paused(&self, priority: Priority) -> bool {
        self.batches
            .iter()
            .flatten()
            .any(|batch_model| batch_model.priority == priority && batch_model.state == BatchState::Paused)
    }

    /// The due messages of a priority class, in the order in which they must be claimed.
    pub(super) fn due(&self, priority: Priority) -> Vec<u128> {
        let mut due: Vec<(i64, MessageId, u128)> = self
            .messages
            .iter()
            .filter_map(|(number, m)| match m.stage {
                Stage::Waiting(at) if m.priority == priority && !m.is_suspect && at <= self.now => {
                    Some((at, m.id, *number))
                }
                _ => None,
            })
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(.., number)| number).collect()
    }

    pub(super) fn erase(&mut self, number: u128) {
        self.messages.remove(&number);
        self.events.retain(|event| event.number != number);
    }

    /// After the clock was set back, due messages stay due, and pauses keep their length.
    pub(super) fn follow_clock(&mut self) {
        let (now, last) = (self.now, self.clock.replace(self.now));
        let Some(was) = last.filter(|was| now + 2 < *was) else { return };
        for message in self.messages.values_mut() {
            if let Stage::Waiting(due) = &mut message.stage {
                if *due > now && *due <= was {
                    *due = now;
                } else if *due > was && (message.is_suspect || message.progress.is_some()) && *due - was <= HOUR {
                    *due -= was - now;
                }
            }
        }
        for (due, _) in self.events.iter_mut().filter_map(|event| event.delivery.as_mut()) {
            if *due > now {
                *due = now.max(*due - (was - now));
            }
        }
    }

    pub(super) fn requeue(&mut self, is_unclean: bool, which: impl Fn(&KnownMessage) -> bool) {
        for message in self.messages.values_mut().filter(|m| m.stage == Stage::InFlight && which(m)) {
            message.interruptions += u32::from(is_unclean);
            message.is_suspect = message.interruptions >= 3;
            let pause = match message.interruptions {
                3 | 4 => 1 << (message.interruptions - 3),
                _ => 0,
            };
            (message.stage, message.in_doubt, message.has_lost_lease) = (Stage::Waiting(self.now + pause), true, false);
        }
    }

    /// Due times and numbers of the suspects that may be sent, the earliest first.
    pub(super) fn suspects(&self) -> Vec<(i64, u128)> {
        let mut suspects: Vec<(i64, MessageId, u128)> = self
            .messages
            .iter()
            .filter(|(_, m)| m.is_suspect && !self.is_paused(m.priority))
            .filter_map(|(number, m)| if let Stage::Waiting(due) = m.stage { Some((due, m.id, *number)) } else { None })
            .collect();
        suspects.sort_unstable();
        suspects.into_iter().map(|(due, _, number)| (due, number)).collect()
    }

    /// The suspect that is sent next. Due ones before it whose batch was cancelled are cancelled.
    fn next_due_suspect(&mut self) -> Option<u128> {
        for (due, number) in self.suspects() {
            if due > self.now {
                break;
            }
            if !self.is_cancelled(number) {
                return Some(number);
            }
            let now = self.now;
            let message = self.messages.get_mut(&number).expect("it is there");
            message.settle(State::Cancelled, b"", now);
            message.is_suspect = false;
        }
        None
    }

    /// Whether the batch of a message was cancelled.
    fn is_cancelled(&self, number: u128) -> bool {
        let is_cancelled = |batch_model: &KnownBatch| {
            batch_model.priority == self.messages[&number].priority && batch_model.state == BatchState::Cancelled
        };
        self.batches.iter().flatten().any(is_cancelled)
    }

    pub(super) fn claim_suspect(&mut self, claimed: Option<&Claimed>) {
        let due = self.next_due_suspect();
        assert_eq!(claimed.map(|claimed| claimed.uuid.as_u128()), due);
        let (Some(number), Some(claimed)) = (due, claimed) else { return };
        let message = self.messages.get_mut(&number).expect("it is there");
        assert_eq!((claimed.id, claimed.priority, claimed.is_in_doubt()), (message.id, message.priority, true));
        assert_eq!((claimed.interruptions, claimed.is_culprit), (message.interruptions, message.interruptions >= 5));
        assert!(claimed.interrupted.len() >= claimed.interruptions as usize, "each end has its time");
        (message.stage, message.claim, message.is_suspect) = (Stage::InFlight, Some(claimed.claim), false);
    }

    pub(super) fn claim(&mut self, claim: Claim, claimed_batch: &ClaimedBatch) {
        let claimed = &claimed_batch.messages;
        self.follow_clock();
        self.requeue(false, |m| m.has_lost_lease);
        let all = numbers(claimed);
        let mut urgent = self.due(TRANSACTIONAL);
        urgent.truncate(claim.max);
        let (first, bulk) = all.split_at(urgent.len().min(all.len()));
        assert_eq!(first, urgent, "transactional messages are first, the earliest first");

        let priorities: Vec<Priority> = std::iter::once(ORDINARY)
            .chain(self.batches.iter().flatten().map(|batch_model| batch_model.priority))
            .filter(|priority| !self.is_paused(*priority))
            .collect();
        let due: Vec<Vec<u128>> = priorities.iter().map(|priority| self.due(*priority)).collect();
        let total: usize = due.iter().map(Vec::len).sum();
        assert_eq!(bulk.len(), total.min(claim.bulk_max).min(claim.max - urgent.len()), "as many as allowed");
        let mut turns = Vec::new();
        for (priority, due) in priorities.iter().zip(&due) {
            let of_class: Vec<u128> = bulk.iter().copied().filter(|n| self.messages[n].priority == *priority).collect();
            assert_eq!(of_class, due[..of_class.len()], "{priority:?}: the earliest first");
            turns.push((of_class.len(), of_class.len() < due.len()));
        }
        for (n, _) in &turns {
            assert!(turns.iter().all(|(m, is_more)| !is_more || n.saturating_sub(*m) <= 8), "in turns: {turns:?}");
        }

        for claimed in claimed {
            let number = claimed.uuid.as_u128();
            let message = self.messages.get_mut(&number).expect("one that waits");
            assert_eq!(
                (claimed.id, claimed.priority, claimed.is_in_doubt()),
                (message.id, message.priority, message.in_doubt)
            );
            assert_eq!((&claimed.progress, claimed.accepted), (&message.progress, at(message.accepted)));
            assert_eq!(claimed.body, new_message(number, ORDINARY, message.other).body);
            (message.stage, message.claim) = (Stage::InFlight, Some(claimed.claim));
        }
        let earliest = |priorities: &[Priority]| {
            let waiting = self.messages.values().filter(|m| priorities.contains(&m.priority) && !m.is_suspect);
            waiting.filter_map(|m| if let Stage::Waiting(due) = m.stage { Some(due) } else { None }).min()
        };
        let of_turn = |is_full: bool, priorities: &[Priority]| {
            if is_full { Some(self.now) } else { earliest(priorities) }.map(at)
        };
        let bulk_classes = if claim.bulk_max > 0 { priorities } else { Vec::new() };
        let all = [vec![TRANSACTIONAL], bulk_classes].concat();
        assert_eq!(claimed_batch.next, of_turn(claimed.len() == claim.max, &all), "when to claim again");
        let transactional = of_turn(urgent.len() == claim.max, &[TRANSACTIONAL]);
        assert_eq!(claimed_batch.next_transactional, transactional, "when to claim transactional messages again");
        assert_eq!(
            claimed_batch.next_suspect,
            self.suspects().first().map(|(due, _)| at(*due)),
            "when a suspect is due"
        );
    }

    pub(super) fn settle(&mut self, number: u128, outcome: Outcome) {
        let now = self.now;
        let is_cancelled = self.is_cancelled(number);
        let message = self.messages.get_mut(&number).expect("one that is in flight");
        message.has_lost_lease &= matches!(outcome, Outcome::Record);
        match outcome {
            Outcome::Done(state, has_event) => {
                message.settle(state, b"{\"report\": 1}", now);
                if has_event {
                    self.last_event = EventId::from(self.last_event.get() + 1);
                    self.events.push(KnownEvent { id: self.last_event, at: now, number, delivery: Some((now, 0)) });
                }
            }
            Outcome::Corrupt => message.settle(State::Corrupt, b"{}", now),
            Outcome::Defer(_) | Outcome::Release if is_cancelled => message.settle(State::Cancelled, b"", now),
            Outcome::Defer(pause) => {
                (message.stage, message.in_doubt, message.interruptions) = (Stage::Waiting(now + pause), false, 0);
                message.progress = Some(b"half-way".to_vec());
            }
            Outcome::Record => message.progress = Some(b"recorded".to_vec()),
            Outcome::Release => message.stage = Stage::Waiting(now),
        }
    }

    pub(super) fn prune(&mut self) {
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
        let is_kept = |event: &KnownEvent| event.delivery.is_some() || event.at >= now - EVENT_RETENTION;
        let gone = self.events.iter().filter(|event| !is_kept(event)).map(|event| event.id);
        self.pruned = gone.max().map_or(self.pruned, |id| id.max(self.pruned));
        self.events.retain(is_kept);
        for batch_model in &mut self.batches {
            let is_empty = |priority| !self.messages.values().any(|m| m.priority == priority);
            batch_model.take_if(|batch_model| batch_model.created < now - RETENTION && is_empty(batch_model.priority));
        }
    }
}
