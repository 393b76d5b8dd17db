//! Resumes messages: after a pause, in another process, or for further channel types. Abandons them.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::mails::Mails;
use super::{CLOCK_SLACK, InFlight, Limit, Pending, Progress, Snapshot};
use crate::message::{Message, Outcome, Report};

impl InFlight {
    /// Resumes a message from stored progress. A recorded attempt without a result is not repeated.
    pub fn resume(snapshot: Arc<Snapshot>, message: Arc<Message>, progress: Progress) -> Self {
        if progress.is_restart() {
            let mut flight = InFlight::new(snapshot, message, progress.limit.clone(), false);
            flight.progress.keep_dropped(&progress);
            flight.progress.retained_mails = progress.retained_mails;
            return flight;
        }
        let mut flight = InFlight::of(snapshot, message, false, progress);
        let now = (flight.snapshot.now)();
        flight.progress.accepted.get_or_insert(now);
        flight.stop_waiting(now);
        flight.follow_clock(now);
        for i in 0..flight.progress.pending.len() {
            if let Pending::Deliver(delivery) = &mut flight.progress.pending[i]
                && delivery.is_recorded
            {
                let mails = std::mem::take(&mut delivery.mails);
                flight.progress.pending[i] = Pending::Nothing;
                let reason = "the host ended during the attempt, and its channel delivers at most once".to_owned();
                flight.settle(i, mails, Outcome::MaybeSent { reason });
            }
        }
        flight
    }

    /// Reopens a settled message, so that [`InFlight::set_limit`] can allow further channel types. `retained` is the result of
    /// [`InFlight::retained_progress`] when it was settled.
    pub fn reopen(
        snapshot: Arc<Snapshot>,
        message: Arc<Message>,
        mut report: Report,
        retained: Option<Progress>,
    ) -> Self {
        report.mark_reported();
        let pending = report.channels.iter().map(|_| Pending::Nothing).collect();
        let limit = Limit::default();
        let accepted = Some((snapshot.now)());
        let retained_mails = retained.map(|progress| progress.retained_mails).unwrap_or_default();
        let progress =
            Progress { limit, report, pending, evaluations: 0, last_advanced: None, accepted, retained_mails };
        InFlight::of(snapshot, message, false, progress)
    }

    /// Replaces the limit. Channel types that are no longer excluded start with the policies; others are not changed.
    pub fn set_limit(&mut self, limit: Limit) {
        let now = (self.snapshot.now)();
        for (pending, report) in self.progress.pending.iter_mut().zip(&mut self.progress.report.channels) {
            if report.outcome == Outcome::Excluded && limit.allows_type(&report.channel_type, &self.snapshot.channels) {
                *pending = Pending::Evaluate(now);
                report.outcome = Outcome::Retry { at: now, error: String::new() };
            }
        }
        self.progress.limit = limit;
    }

    /// Sets when the message was accepted, if that was earlier than its first step.
    pub fn set_accepted(&mut self, accepted: Timestamp) {
        self.progress.accepted = Some(accepted);
    }

    /// Ends the wait for a destination. A message that is resumed early is meant to try it.
    pub(super) fn stop_waiting(&mut self, now: Timestamp) {
        for pending in &mut self.progress.pending {
            if let Pending::Deliver(delivery) = pending
                && delivery.waits_for.is_some()
                && delivery.due > now
            {
                let early = delivery.due.duration_since(now);
                delivery.window_opened =
                    delivery.window_opened.map(|opened| opened.checked_sub(early).unwrap_or(opened));
                delivery.due = now;
            }
        }
    }

    /// Adds times at which an interruption was found: the host had ended while it processed the message, which may therefore be sent
    /// twice. Duplicates are ignored.
    pub fn add_interruptions(&mut self, found: &[Timestamp]) {
        let interruptions = &mut self.progress.report.interruptions;
        interruptions.extend_from_slice(found);
        interruptions.sort_unstable();
        interruptions.dedup();
    }

    /// Abandons the message: all channel types that are not settled have failed. Can be called after a panic in
    /// [`InFlight::advance`].
    pub fn abandon(&mut self, error: &str) {
        for i in 0..self.progress.pending.len() {
            let mails = match std::mem::replace(&mut self.progress.pending[i], Pending::Nothing) {
                Pending::Deliver(delivery) => delivery.mails,
                Pending::Evaluate(_) | Pending::Nothing => Mails::default(),
            };
            if !self.progress.report.channels[i].outcome.is_settled() {
                self.settle(i, mails, Outcome::Failed { error: error.to_owned() });
            }
        }
    }

    /// The progress to retain for a settled message, so that a retry with [`InFlight::resume`] does not send a mail to recipients
    /// that have it, and does not try dropped addresses again. `None` if there are none.
    pub fn retained_progress(&self) -> Option<Progress> {
        let retained_mails = self.progress.retained_mails.clone();
        if retained_mails.is_empty() && !self.progress.has_addresses() {
            return None;
        }
        let (snapshot, message, limit) = (self.snapshot.clone(), self.message.clone(), self.progress.limit.clone());
        let mut progress = InFlight::new(snapshot, message, limit, false).progress;
        progress.keep_dropped(&self.progress);
        let is_needed = !retained_mails.is_empty() || progress.has_addresses();
        is_needed.then_some(Progress { retained_mails, ..progress })
    }

    /// Adjusts due times and windows to the clock. Only scheduled pauses use up a window, not additional delays (a queue, a paused
    /// batch, a stopped process, a clock that was set forward). A clock that was set back extends neither a pause nor a window.
    pub(super) fn follow_clock(&mut self, now: Timestamp) {
        let set_back =
            self.progress.last_advanced.replace(now).map_or(SignedDuration::ZERO, |last| last.duration_since(now));
        let is_set_back = set_back > CLOCK_SLACK;
        for (pending, report) in self.progress.pending.iter_mut().zip(&self.progress.report.channels) {
            let moved_by = |by: SignedDuration| move |at: Timestamp| at.checked_add(by).unwrap_or(at);
            match pending {
                // Only the pause after a failed policy moves; a policy's delay ends at a fixed time.
                Pending::Evaluate(at) if is_set_back && matches!(report.outcome, Outcome::Retry { .. }) => {
                    *at = moved_by(-set_back)(*at);
                }
                Pending::Deliver(delivery) if is_set_back || !delivery.is_recorded => {
                    let late = now.duration_since(delivery.due).max(SignedDuration::ZERO);
                    let moved = moved_by(if is_set_back { -set_back } else { late });
                    (delivery.due, delivery.window_opened) = (moved(delivery.due), delivery.window_opened.map(moved));
                }
                _ => {}
            }
        }
    }
}
