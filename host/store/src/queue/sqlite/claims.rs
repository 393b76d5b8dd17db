//! Claiming messages, and settling claims.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::blocked::RELEASED;
use super::damage::Location;
use super::rows::RowReader;
use super::writer::{WriteError, Writer};
use super::{
    Claim, ClaimNo, Claimed, ClaimedBatch, Done, MessageId, ORDINARY, Priority, QueueError, Settled, Settlement,
    Sqlite, State, TRANSACTIONAL, limits, moment, ms, ms_due, ready,
};
use crate::sqlite::group_commit::Urgency;

/// Priority classes that one claim considers.
const PRIORITIES_MAX: usize = 64;
/// Messages that a priority class gets in its turn.
const TURN: usize = 8;
/// How a log line names the table `queue` when it is damaged.
pub(super) const WAITING: &str = "waiting messages";
/// Times of interruptions that a row holds, at most.
const TIMES_MAX: i64 = 1_000;

/// The lease of a message that is in flight.
#[derive(Clone, Copy)]
pub(super) struct Lease {
    /// When it ends.
    pub until: Instant,
    /// The claim that it belongs to; `None` if that is no longer known.
    pub claim: Option<u64>,
    /// More channel types were requested after the claim; the worker does not know of them.
    pub is_extended: bool,
}

impl Lease {
    pub(super) fn new(claim: Option<u64>) -> Self {
        Lease { until: Instant::now() + super::LEASE, claim, is_extended: false }
    }
}

/// The message that a row of `queue` refers to.
pub(super) enum Found {
    Message(Box<Claimed>),
    /// There is no such message, or it is settled.
    Nothing,
    /// The message cannot be read.
    Damaged(String),
}

/// The shared message type of a batch, or why it cannot be read.
type Kind = Result<Option<Arc<[u8]>>, String>;

impl Sqlite {
    pub(crate) async fn claim(&self, claim: Claim, now: Timestamp) -> Result<ClaimedBatch, QueueError> {
        let claimed = self.writer.write(move |writer| Ok(writer.claim(claim, now)?)).await;
        match &claimed {
            Ok(_) => self.health.claimed(),
            Err(error) => self.health.claim_failed(&error.to_string()),
        }
        claimed
    }

    pub(crate) async fn settle(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), QueueError> {
        self.settle_at(Urgency::Immediate, settled, now).await
    }

    pub(crate) async fn settle_deferred(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), QueueError> {
        self.settle_at(Urgency::Deferred, settled, now).await
    }

    async fn settle_at(&self, urgency: Urgency, settled: Vec<Settled>, now: Timestamp) -> Result<(), QueueError> {
        let is_back = |s: &Settled| {
            matches!(s.settlement, Settlement::Defer { .. } | Settlement::Release | Settlement::Interrupted)
        };
        let wakes = settled.iter().any(is_back);
        let write = move |writer: &mut Writer| settled.iter().try_for_each(|one| writer.settle(one, now));
        self.writer.write_at(urgency, write).await?;
        if wakes {
            self.wakeups.wake(true);
        }
        Ok(())
    }
}

impl Writer {
    pub(super) fn claim(&mut self, claim: Claim, now: Timestamp) -> rusqlite::Result<ClaimedBatch> {
        let is_catching_up = self.follow_clock(now)?;
        self.expire_leases(now)?;
        let mut found = self.due(TRANSACTIONAL, claim.max, now)?;
        let is_more = found.len() == claim.max || is_catching_up;
        let next_transactional = if is_more { Some(ms(now)) } else { self.next_due(TRANSACTIONAL)? };
        let mut left = claim.bulk_max.min(claim.max - found.len());
        let (priorities, held) = (self.priorities()?, self.blocked.held());
        let mut served = true;
        while left > 0 && served {
            served = false;
            for priority in &priorities {
                let by = if held.contains(priority) { moment(RELEASED) } else { now };
                let due = self.due(*priority, if priorities.len() == 1 { left } else { left.min(TURN) }, by)?;
                if !due.is_empty() {
                    (served, self.turn) = (true, *priority);
                    left -= due.len();
                    found.extend(due);
                }
                if left == 0 {
                    break;
                }
            }
        }
        let mut next = next_transactional;
        for priority in priorities.iter().filter(|_| claim.bulk_max > 0) {
            let due = self.next_due(*priority)?.filter(|due| *due <= RELEASED || !held.contains(priority));
            next = next.into_iter().chain(due).min();
        }
        if found.len() == claim.max {
            next = Some(ms(now));
        }
        let messages = self.read_all_claimed(found, now)?;
        let next_suspect = self.next_suspect()?;
        Ok(ClaimedBatch {
            messages,
            next: next.map(moment),
            next_transactional: next_transactional.map(moment),
            next_suspect,
        })
    }

    /// Reads claimed messages. Those that cannot be read are set aside.
    fn read_all_claimed(&mut self, found: Vec<(i64, i64)>, now: Timestamp) -> rusqlite::Result<Vec<Claimed>> {
        let (mut kinds, mut orphans) = (BTreeMap::new(), Vec::new());
        let mut messages = Vec::with_capacity(found.len());
        for (priority, id) in found {
            let kind: &Kind = match kinds.entry(priority) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    new.insert(self.attempt(Location::Batch(priority), |writer| writer.kind(priority))?)
                }
            };
            match self.read_claimed(priority, id, kind, now)? {
                Found::Message(claimed) => messages.push(*claimed),
                Found::Nothing => orphans.push(id),
                Found::Damaged(damage) => self.set_aside(id, priority, &damage, now)?,
            }
        }
        self.log_orphans("rows", &orphans);
        Ok(messages)
    }

    fn next_due(&mut self, priority: i64) -> rusqlite::Result<Option<i64>> {
        Ok(self.attempt(Location::Priority(priority), |writer| ready::next_due(&writer.db, priority))?.ok().flatten())
    }

    /// The non-transactional priority classes that have messages and are not paused, starting after the one that had the last turn.
    fn priorities(&mut self) -> rusqlite::Result<Vec<i64>> {
        let waiting = self.attempt(Location::Part(WAITING), |writer| writer.waiting_priorities())?;
        let Err(damage) = waiting else { return Ok(waiting.unwrap_or_default()) };
        self.health.damaged(WAITING, "some of them are not sent", &damage);
        // Query each class that may have messages separately.
        let part = ("the batches", "batches are not sent");
        let batches = self.attempt_part(part, |writer| {
            let mut priorities = writer.db.prepare_cached("SELECT lane FROM batches ORDER BY lane LIMIT ?1")?;
            priorities.query_map([PRIORITIES_MAX as i64], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()
        })?;
        Ok([ORDINARY].into_iter().chain(batches).filter(|priority| !self.paused.contains(priority)).collect())
    }

    fn waiting_priorities(&self) -> rusqlite::Result<Vec<i64>> {
        let (mut priorities, mut at, mut wrapped) = (Vec::new(), self.turn, false);
        while priorities.len() < PRIORITIES_MAX {
            match ready::next_priority(&self.db, at)? {
                Some(priority) if wrapped && priority > self.turn => break,
                Some(priority) => {
                    at = priority;
                    if !self.paused.contains(&priority) {
                        priorities.push(priority);
                    }
                }
                None if wrapped => break,
                None => (at, wrapped) = (ORDINARY - 1, true),
            }
        }
        Ok(priorities)
    }

    /// Claims due messages of a priority class, the earliest first.
    fn due(&mut self, priority: i64, max: usize, now: Timestamp) -> rusqlite::Result<Vec<(i64, i64)>> {
        let ids =
            self.attempt(Location::Priority(priority), |writer| ready::take_due(&writer.db, priority, ms(now), max))?;
        let ids = ids.unwrap_or_else(|damage| {
            self.health.damaged(WAITING, "some of them are not sent", &damage);
            Vec::new()
        });
        let mut claimed = Vec::with_capacity(ids.len());
        for id in ids {
            self.last_claim += 1;
            if self.start_claim(id, priority, self.last_claim)? {
                claimed.push((priority, id));
            }
        }
        Ok(claimed)
    }

    /// Reads a message that was just claimed. Ends the claim if there is no such message or it is settled.
    pub(super) fn read_claimed(
        &mut self,
        priority: i64,
        id: i64,
        kind: &Kind,
        now: Timestamp,
    ) -> rusqlite::Result<Found> {
        let sql =
            "SELECT uuid, body, progress, in_doubt, trace, accepted, doubts, interruptions, state, name, user, email,
            report, limits, ifnull(retried, accepted) FROM messages WHERE id = ?1";
        let claim = self.leases.get(&id).and_then(|lease| lease.claim).unwrap_or_default();
        let most = self.settings.max_interruptions;
        let read = |row: &rusqlite::Row| {
            let is_queued = matches!(row.get_ref(8), Ok(rusqlite::types::ValueRef::Integer(0)));
            Ok(is_queued.then(|| claimed((id, claim, priority), kind, RowReader::new(row), (most, now))))
        };
        let query = |writer: &mut Writer| writer.db.prepare_cached(sql)?.query_row([id], read).optional();
        match self.attempt(Location::Message(id), query)? {
            Ok(Some(Some(claimed))) => Ok(Found::Message(Box::new(claimed))),
            Ok(_) => {
                self.end_claim(id)?;
                self.unsettled = self.unsettled.saturating_sub(1);
                Ok(Found::Nothing)
            }
            Err(damage) => Ok(Found::Damaged(damage)),
        }
    }

    /// Requeues messages whose lease has ended.
    fn expire_leases(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let instant = Instant::now();
        let ended: Vec<i64> =
            self.leases.iter().filter(|(_, lease)| lease.until <= instant).map(|(id, _)| *id).collect();
        for id in ended {
            let Some(priority) = self.end_claim(id)? else { continue };
            let ended = self.attempt(Location::Message(id), |writer| {
                tracing::warn!(
                    message = id,
                    "The lease of a message ended before it was settled; it is requeued, in doubt."
                );
                match writer.mark_in_doubt(id, false, now)? {
                    Some(interruptions) => writer.requeue(id, priority, interruptions, now),
                    None => Ok(()),
                }
            })?;
            if let Err(damage) = ended {
                self.set_aside(id, priority, &damage, now)?;
            }
        }
        Ok(())
    }

    /// Ends a claim. Returns the message's priority class, if it was claimed.
    pub(super) fn end_claim(&mut self, id: i64) -> rusqlite::Result<Option<i64>> {
        let lease = self.leases.remove(&id);
        self.extended.extend(lease.filter(|lease| lease.is_extended).map(|_| id));
        self.db
            .prepare_cached("DELETE FROM claims WHERE id = ?1 RETURNING lane")?
            .query_row([id], |row| row.get(0))
            .optional()
    }

    fn settle(&mut self, settled: &Settled, now: Timestamp) -> Result<(), WriteError> {
        let id = settled.id.0;
        let lease = self.leases.get(&id);
        let is_current = lease.is_some_and(|lease| lease.claim.is_none_or(|claim| claim == settled.claim.0));
        if !is_current {
            return match &settled.settlement {
                Settlement::Record { .. } => {
                    Err(WriteError::Rejected(QueueError::State("its claim has ended".to_owned())))
                }
                _ => Ok(()),
            };
        }
        if let Settlement::Record { progress } = &settled.settlement {
            let record = |writer: &mut Writer| {
                let sql = "UPDATE messages SET progress = ?1, report = NULL WHERE id = ?2";
                writer.db.prepare_cached(sql)?.execute(params![progress, id]).map(drop)
            };
            let Err(damage) = self.attempt(Location::Message(id), record)? else { return Ok(()) };
            self.settle_damaged(id, &damage, now)?;
            return Err(WriteError::Rejected(QueueError::State(format!("it was set aside: {damage}"))));
        }
        let with_event = |writer: &mut Writer| writer.settle_one(settled, true, now);
        let Err(damage) = self.attempt(Location::Event(id), with_event)? else { return Ok(()) };
        // The events may be what is damaged. Storing the outcome matters more, so settle without an event.
        let without_event = |writer: &mut Writer| writer.settle_one(settled, false, now);
        let Err(damage) = self.attempt(Location::Message(id), without_event)? else {
            let consequence = "outcomes of messages reach neither webhooks nor streams";
            self.health.damaged("the events", consequence, &damage);
            return Ok(());
        };
        Ok(self.settle_damaged(id, &damage, now)?)
    }

    /// Sets aside a message whose outcome cannot be written, so that it is not sent again.
    fn settle_damaged(&mut self, id: i64, damage: &str, now: Timestamp) -> rusqlite::Result<()> {
        match self.end_claim(id)? {
            Some(priority) => self.set_aside(id, priority, damage, now),
            None => Ok(()),
        }
    }

    fn settle_one(&mut self, settled: &Settled, with_event: bool, now: Timestamp) -> rusqlite::Result<()> {
        let id = settled.id.0;
        let is_extended = self.leases.get(&id).is_some_and(|lease| lease.is_extended);
        let Some(priority) = self.end_claim(id)? else { return Ok(()) };
        match &settled.settlement {
            // Its batch was cancelled meanwhile.
            Settlement::Defer { .. } | Settlement::Block { .. } | Settlement::Release | Settlement::Interrupted
                if self.is_cancelled(priority)? =>
            {
                self.set_settled(id, priority, (State::Cancelled, b""), now)?;
            }
            Settlement::Done(Done { report, kept, contacts, deliveries, .. }) if is_extended => {
                let sql =
                    "UPDATE messages SET report = ?1, progress = ?2, in_doubt = 0, doubts = NULL, interruptions = 0
                    WHERE id = ?3";
                self.db.prepare_cached(sql)?.execute(params![report, kept, id])?;
                self.note_deliveries(id, deliveries)?;
                self.put(priority, ms(now), id)?;
                let mut events = contacts.iter().filter(|_| with_event);
                events.try_for_each(|event| self.emit(id, event, now))?;
            }
            Settlement::Done(Done { state, report, event, contacts, kept, deliveries }) => {
                self.note_deliveries(id, deliveries)?;
                self.set_settled(id, priority, (*state, report), now)?;
                if let Some(kept) = kept.as_ref().filter(|_| state.is_dead()) {
                    let sql = "UPDATE messages SET progress = ?1 WHERE id = ?2";
                    self.db.prepare_cached(sql)?.execute(params![kept, id])?;
                }
                let mut events = contacts.iter().chain(event).filter(|_| with_event);
                events.try_for_each(|event| self.emit(id, event, now))?;
            }
            Settlement::Corrupt { report } => self.set_settled(id, priority, (State::Corrupt, report), now)?,
            Settlement::Defer { due, progress } => {
                // An attempt finished, so the message does not crash the process; earlier interruptions are in its progress.
                let sql =
                    "UPDATE messages SET progress = ?1, report = NULL, in_doubt = 0, doubts = NULL, interruptions = 0
                    WHERE id = ?2";
                self.db.prepare_cached(sql)?.execute(params![progress, id])?;
                self.put(priority, if is_extended { ms(now) } else { ms_due(*due) }, id)?;
            }
            Settlement::Block { due, progress, destinations } => {
                let sql =
                    "UPDATE messages SET progress = ?1, report = NULL, in_doubt = 0, doubts = NULL, interruptions = 0
                    WHERE id = ?2";
                self.db.prepare_cached(sql)?.execute(params![progress, id])?;
                self.block((id, priority), ms_due(*due), destinations, now)?;
            }
            Settlement::Release => self.put(priority, ms(now), id)?,
            Settlement::Interrupted => {
                if let Some(interruptions) = self.mark_in_doubt(id, true, now)? {
                    self.requeue(id, priority, interruptions, now)?;
                }
            }
            Settlement::Record { .. } => {}
        }
        Ok(())
    }

    /// Sets the final state of a message that neither waits nor is claimed.
    pub(super) fn set_settled(
        &mut self,
        id: i64,
        priority: i64,
        (state, report): (State, &[u8]),
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        self.unblock(id)?;
        // A dead letter can be retried, so its body stays for a while.
        let sql = if state.is_dead() {
            "UPDATE messages SET state = ?1, settled = ?2, report = ?3, progress = NULL WHERE id = ?4"
        } else {
            "UPDATE messages SET state = ?1, settled = ?2, report = ?3, progress = NULL, body = NULL WHERE id = ?4"
        };
        self.db.prepare_cached(sql)?.execute(params![state as i64, ms(now), report, id])?;
        self.unsettled = self.unsettled.saturating_sub(1);
        self.settled += 1;
        self.counted.settled += 1;
        self.counted.failed += u64::from(state.is_dead());
        self.tally(priority, State::Queued, -1);
        self.tally(priority, state, 1);
        Ok(())
    }

    /// Marks a message that was in flight as in doubt. `is_unclean`: the process ended unexpectedly. Returns the number of its
    /// interruptions; `None` if there is no such message or it is settled. A report tells interruptions apart by their times, so one in
    /// the millisecond of the previous one is recorded a millisecond after it.
    pub(super) fn mark_in_doubt(&mut self, id: i64, is_unclean: bool, now: Timestamp) -> rusqlite::Result<Option<i64>> {
        let sql = "UPDATE messages SET in_doubt = 1, interruptions = interruptions + ?2, doubts = CASE
                WHEN NOT json_valid(ifnull(doubts, '[]')) THEN json_array(?3)
                WHEN json_array_length(ifnull(doubts, '[]')) >= ?4 THEN doubts
                WHEN doubts ->> '$[#-1]' - ?3 BETWEEN 0 AND ?4 THEN json_insert(doubts, '$[#]', doubts ->> '$[#-1]' + 1)
                ELSE json_insert(ifnull(doubts, '[]'), '$[#]', ?3) END
            WHERE id = ?1 AND state = 0 RETURNING interruptions";
        let values = params![id, i64::from(is_unclean), ms(now), TIMES_MAX];
        let mut doubt = self.db.prepare_cached(sql)?;
        doubt.query_row(values, |row| Ok(RowReader::new(row).number_or(0, 0))).optional()
    }

    /// Makes every lease that much older, for tests.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn age_leases(&mut self, by: std::time::Duration) {
        self.leases.values_mut().for_each(|lease| lease.until -= by);
    }
}

/// A claimed message from its row, with the faults of the row.
fn claimed(
    (id, claim, priority): (i64, u64, i64),
    kind: &Kind,
    mut row: RowReader,
    (most, now): (u32, Timestamp),
) -> Claimed {
    let (uuid, body, progress) = (row.uuid(0), row.bytes(1), row.bytes(2));
    let (is_in_doubt, trace, accepted) = (row.number_or(3, 0) != 0, row.text(4), row.number_or(5, 0));
    let (doubts, interruptions) = (row.text(6), row.number_or(7, 0));
    let _ = (row.text(9), row.text(10), row.text(11));
    let (report, limited) = (row.bytes(12), row.text(13));
    let since = moment(row.number_or(14, 0));
    let limits = limited.as_deref().map(limits::read).transpose();
    let times: Vec<i64> = doubts.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let mut interrupted: Vec<Timestamp> = times.into_iter().map(moment).collect();
    if is_in_doubt && interrupted.is_empty() {
        // An earlier version did not store the time.
        interrupted.push(now);
    }
    let interruptions = u32::try_from(interruptions).unwrap_or(u32::MAX);
    let mut faults = std::mem::take(&mut row.faults);
    if let Err(error) = &limits {
        faults.push(format!("limits is not a list of lists of strings ({error})"));
    }
    if let Err(error) = kind {
        faults.push(format!("its batch cannot be read: {error}"));
    }
    Claimed {
        id: MessageId(id),
        claim: ClaimNo(claim),
        uuid,
        priority: Priority(priority),
        kind: kind.as_ref().ok().cloned().flatten(),
        body: body.unwrap_or_default(),
        progress,
        report,
        limits: limits.ok().flatten(),
        interrupted,
        interruptions,
        is_culprit: interruptions >= most,
        damage: (!faults.is_empty()).then(|| faults.join(", ")),
        trace,
        accepted: moment(accepted),
        since,
    }
}
