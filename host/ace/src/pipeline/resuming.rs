//! Taking a message up again: after a pause, in another process, for further channel types, or for the last time.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::mails::Mails;
use super::{CLOCK_SLACK, InFlight, Limit, Progress, Snapshot, Todo};
use crate::message::{Message, Outcome, Report};

impl InFlight {
    /// A message that was put away goes on. An attempt that was recorded and has no result is not made again.
    pub fn resume(snapshot: Arc<Snapshot>, message: Arc<Message>, progress: Progress) -> Self {
        if progress.is_anew() {
            let mut flight = InFlight::new(snapshot, message, progress.limit, false);
            flight.progress.mailed = progress.mailed;
            return flight;
        }
        let mut flight = InFlight { message, snapshot, dry: false, progress, is_to_be_recorded: false, held: None };
        let now = (flight.snapshot.now)();
        flight.progress.accepted.get_or_insert(now);
        flight.stop_waiting(now);
        flight.follow_clock(now);
        for i in 0..flight.progress.todo.len() {
            if let Todo::Carry(carrying) = &mut flight.progress.todo[i]
                && carrying.is_recorded
            {
                let mails = std::mem::take(&mut carrying.mails);
                flight.progress.todo[i] = Todo::Nothing;
                let reason = "the host ended during the attempt, and its channel delivers at most once".to_owned();
                flight.settle(i, mails, Outcome::MaybeSent { reason });
            }
        }
        flight
    }

    /// A message that was settled goes on, as far as [`InFlight::allow`] opens further channel types. `kept`: what
    /// [`InFlight::another_try`] gave when it was settled.
    pub fn reopen(snapshot: Arc<Snapshot>, message: Arc<Message>, report: Report, kept: Option<Progress>) -> Self {
        let todo = report.channels.iter().map(|_| Todo::Nothing).collect();
        let limit = Limit::default();
        let accepted = Some((snapshot.now)());
        let mailed = kept.map(|kept| kept.mailed).unwrap_or_default();
        let progress = Progress { limit, report, todo, asked_in_vain: 0, seen: None, accepted, mailed };
        InFlight { message, snapshot, dry: false, progress, is_to_be_recorded: false, held: None }
    }

    /// Sets where it may go anew. Channel types that were excluded before and are not any more are asked for; those that were
    /// asked for stay as they are.
    pub fn allow(&mut self, limit: Limit) {
        let now = (self.snapshot.now)();
        for (todo, report) in self.progress.todo.iter_mut().zip(&mut self.progress.report.channels) {
            if report.outcome == Outcome::Excluded && limit.allows_type(&report.channel_type, &self.snapshot.channels) {
                *todo = Todo::Ask(now);
                report.outcome = Outcome::Retry { at: now, error: String::new() };
            }
        }
        self.progress.limit = limit;
    }

    /// When the message was accepted, where that was before it was first taken up.
    pub fn was_accepted(&mut self, accepted: Timestamp) {
        self.progress.accepted = Some(accepted);
    }

    /// Who takes a message up before it is due has seen that what it waits for may be tried.
    pub(super) fn stop_waiting(&mut self, now: Timestamp) {
        for todo in &mut self.progress.todo {
            if let Todo::Carry(carrying) = todo
                && carrying.waits_for.is_some()
                && carrying.due > now
            {
                let early = carrying.due.duration_since(now);
                carrying.opened = carrying.opened.map(|opened| opened.checked_sub(early).unwrap_or(opened));
                carrying.due = now;
            }
        }
    }

    /// Notes when it was noticed that the host had ended while the message was under way: what it was doing then may be done
    /// twice. A moment that was noted before is noted once.
    pub fn was_interrupted(&mut self, noticed: &[Timestamp]) {
        let interruptions = &mut self.progress.report.interruptions;
        interruptions.extend_from_slice(noticed);
        interruptions.sort_unstable();
        interruptions.dedup();
    }

    /// Nothing more is tried: every channel type that is not settled has failed. Also after a panic in [`InFlight::advance`].
    pub fn abandon(&mut self, error: &str) {
        for i in 0..self.progress.todo.len() {
            let mails = match std::mem::replace(&mut self.progress.todo[i], Todo::Nothing) {
                Todo::Carry(carrying) => carrying.mails,
                Todo::Ask(_) | Todo::Nothing => Mails::default(),
            };
            if !self.progress.report.channels[i].outcome.is_settled() {
                self.settle(i, mails, Outcome::Failed { error: error.to_owned() });
            }
        }
    }

    /// What must be kept of a message that is settled, so that trying it again from the beginning mails nothing to whom a relay
    /// accepted it for already. For [`InFlight::resume`] then; `None` where there is nothing of that kind.
    pub fn another_try(&self) -> Option<Progress> {
        let mailed = self.progress.mailed.clone();
        if mailed.is_empty() {
            return None;
        }
        let (snapshot, message, limit) = (self.snapshot.clone(), self.message.clone(), self.progress.limit.clone());
        Some(Progress { mailed, ..InFlight::new(snapshot, message, limit, false).progress })
    }

    /// A window is used up by the pauses between attempts alone: not by what came on top of them (a queue, a paused batch, no
    /// process, a clock that was set forward), and a clock that was set back makes neither a pause nor a window longer.
    pub(super) fn follow_clock(&mut self, now: Timestamp) {
        let set_back = self.progress.seen.replace(now).map_or(SignedDuration::ZERO, |seen| seen.duration_since(now));
        let is_set_back = set_back > CLOCK_SLACK;
        for (todo, report) in self.progress.todo.iter_mut().zip(&self.progress.report.channels) {
            let moved_by = |by: SignedDuration| move |at: Timestamp| at.checked_add(by).unwrap_or(at);
            match todo {
                // A policy's delay ends at a moment of the day, and the pause after a broken policy does not.
                Todo::Ask(at) if is_set_back && matches!(report.outcome, Outcome::Retry { .. }) => {
                    *at = moved_by(-set_back)(*at);
                }
                Todo::Carry(carrying) if is_set_back || !carrying.is_recorded => {
                    let late = now.duration_since(carrying.due).max(SignedDuration::ZERO);
                    let moved = moved_by(if is_set_back { -set_back } else { late });
                    (carrying.due, carrying.opened) = (moved(carrying.due), carrying.opened.map(moved));
                }
                _ => {}
            }
        }
    }
}
