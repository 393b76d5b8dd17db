//! Handing messages out, and taking them back: settled, to be tried again, or given back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use super::parked::RELEASED;
use super::writer::{Pace, Stop, Writer};
use super::{Limits, ORDINARY, Queue, QueueError, State, TRANSACTIONAL, limits, moment, ms, uuid, waiting};

/// Lanes that are looked at in one claim.
const LANES_MAX: usize = 64;
/// Messages of one lane in its turn.
const TURN: usize = 8;

/// What is to be claimed.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Messages at most.
    pub max: usize,
    /// How many of them may be other than transactional.
    pub bulk_max: usize,
}

/// A message that is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub id: i64,
    /// Of a message's claims this one.
    pub claim: u64,
    pub uuid: Uuid,
    pub lane: i64,
    /// What it shares with the others of its batch, where it is of one: the batch's `kind`.
    pub kind: Option<Arc<[u8]>>,
    pub body: Vec<u8>,
    pub progress: Option<Vec<u8>>,
    /// What became of it before it was asked for further channel types.
    pub report: Option<Vec<u8>>,
    /// What its requests limited it to, where the first of them did.
    pub limits: Option<Limits>,
    /// A process ended, or a worker died, while it was under way: it may have been delivered then.
    pub in_doubt: bool,
    pub trace: Option<String>,
    pub accepted: Timestamp,
    /// When it was accepted, or last told to be tried again after it had failed: its age counts from there.
    pub since: Timestamp,
}

/// What a claim came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    pub messages: Vec<Claimed>,
    /// When to come back: when the next one is due that could have been claimed and is not due now.
    pub next: Option<Timestamp>,
    /// The same of transactional messages alone.
    pub next_transactional: Option<Timestamp>,
}

/// What became of a message that was handed out.
#[derive(Debug, Clone)]
pub struct Settled {
    pub id: i64,
    /// The claim it was handed out by. One that has ended changes nothing: the message is another worker's by now.
    pub claim: u64,
    pub settlement: Settlement,
}

#[derive(Debug, Clone)]
pub enum Settlement {
    /// Nothing more is to be tried. What only another attempt could need is erased, unless it is a dead letter.
    Done {
        state: State,
        report: Vec<u8>,
        /// What is told to webhooks and streams.
        event: Option<Vec<u8>>,
    },
    /// To be taken up again then.
    Again { due: Timestamp, progress: Vec<u8> },
    /// As `Again`, where what it waits for is down: it is due then at the latest, and earlier with [`Queue::unpark`].
    Park { due: Timestamp, progress: Vec<u8>, destinations: Vec<String> },
    /// It stays under way; where it stands is written down. `QueueError::State` where its claim has ended: whoever asked has it
    /// no more.
    Record { progress: Vec<u8> },
    /// It was not begun, and waits as before.
    Back,
    /// What is kept of it cannot be read: it is set aside, with the reason for its report.
    Corrupt { report: Vec<u8> },
}

impl Queue {
    /// Messages that are due, the transactional ones first, then a few of each other lane in turn. Each is this process's for
    /// [`super::LEASE`].
    pub async fn claim(&self, claim: Claim, now: Timestamp) -> Result<Handed, QueueError> {
        self.writer.write(move |writer| Ok(writer.claim(claim, now)?)).await
    }

    /// Takes them back, all with one durable write. One that is not there any more (someone had a person forgotten) is passed over.
    pub async fn settle(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), QueueError> {
        self.settle_at(Pace::AtOnce, settled, now).await
    }

    /// As [`Queue::settle`], where nobody waits for it: a few milliseconds later, with whatever else is written.
    pub async fn settle_soon(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), QueueError> {
        self.settle_at(Pace::Patient, settled, now).await
    }

    async fn settle_at(&self, pace: Pace, settled: Vec<Settled>, now: Timestamp) -> Result<(), QueueError> {
        let wakes = settled.iter().any(|s| matches!(s.settlement, Settlement::Again { .. } | Settlement::Back));
        let write = move |writer: &mut Writer| settled.iter().try_for_each(|one| writer.settle(one, now));
        self.writer.write_at(pace, write).await?;
        if wakes {
            self.wake(true);
        }
        Ok(())
    }
}

impl Writer {
    pub fn claim(&mut self, claim: Claim, now: Timestamp) -> rusqlite::Result<Handed> {
        let is_catching_up = self.follow_clock(now)?;
        self.end_leases(now)?;
        let mut found = self.due(TRANSACTIONAL, claim.max, now)?;
        let next_transactional = match found.len() < claim.max && !is_catching_up {
            true => waiting::next_due(&self.db, TRANSACTIONAL)?,
            false => Some(ms(now)),
        };
        let mut left = claim.bulk_max.min(claim.max - found.len());
        let (lanes, held) = (self.lanes()?, self.parked.held());
        let mut served = true;
        while left > 0 && served {
            served = false;
            for lane in &lanes {
                let by = if held.contains(lane) { moment(RELEASED) } else { now };
                let due = self.due(*lane, if lanes.len() == 1 { left } else { left.min(TURN) }, by)?;
                if !due.is_empty() {
                    (served, self.turn) = (true, *lane);
                    left -= due.len();
                    found.extend(due);
                }
                if left == 0 {
                    break;
                }
            }
        }
        let mut next = next_transactional;
        for lane in lanes.iter().filter(|_| claim.bulk_max > 0) {
            let due = waiting::next_due(&self.db, *lane)?.filter(|due| *due <= RELEASED || !held.contains(lane));
            next = next.into_iter().chain(due).min();
        }
        if found.len() == claim.max {
            next = Some(ms(now));
        }
        let mut kinds = BTreeMap::new();
        let mut messages = Vec::with_capacity(found.len());
        for (lane, id) in found {
            let kind = match kinds.entry(lane) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.kind(lane)?),
            };
            messages.push(self.hand_out(lane, id, kind.as_ref())?);
        }
        Ok(Handed { messages, next: next.map(moment), next_transactional: next_transactional.map(moment) })
    }

    /// The lanes after the transactional one that hold something and are not paused, beginning after the one that had its turn
    /// last.
    fn lanes(&self) -> rusqlite::Result<Vec<i64>> {
        let (mut lanes, mut at, mut wrapped) = (Vec::new(), self.turn, false);
        while lanes.len() < LANES_MAX {
            match waiting::next_lane(&self.db, at)? {
                Some(lane) if wrapped && lane > self.turn => break,
                Some(lane) => {
                    at = lane;
                    if !self.paused.contains(&lane) {
                        lanes.push(lane);
                    }
                }
                None if wrapped => break,
                None => (at, wrapped) = (ORDINARY - 1, true),
            }
        }
        Ok(lanes)
    }

    /// Takes what is due out of a lane, the earliest first.
    fn due(&mut self, lane: i64, max: usize, now: Timestamp) -> rusqlite::Result<Vec<(i64, i64)>> {
        let ids = waiting::take_due(&self.db, lane, ms(now), max)?;
        for id in &ids {
            self.last_claim += 1;
            self.take(*id, lane, self.last_claim)?;
        }
        Ok(ids.into_iter().map(|id| (lane, id)).collect())
    }

    fn hand_out(&self, lane: i64, id: i64, kind: Option<&Arc<[u8]>>) -> rusqlite::Result<Claimed> {
        let sql = "SELECT uuid, body, progress, in_doubt, trace, accepted, report, limits, ifnull(retried, accepted)
            FROM messages WHERE id = ?1";
        let claim = self.leases.get(&id).and_then(|lease| lease.claim).unwrap_or_default();
        // Whatever is wrong with the row, the message is handed out: the worker sees that it cannot be read.
        let read = |row: &rusqlite::Row| {
            Ok(Claimed {
                id,
                claim,
                uuid: uuid(&row.get::<_, Vec<u8>>(0).unwrap_or_default()),
                lane,
                kind: kind.cloned(),
                body: row.get(1).unwrap_or_default(),
                progress: row.get(2).unwrap_or_default(),
                in_doubt: row.get(3).unwrap_or_default(),
                trace: row.get(4).unwrap_or_default(),
                accepted: moment(row.get(5).unwrap_or_default()),
                since: moment(row.get(8).unwrap_or_default()),
                report: row.get(6).unwrap_or_default(),
                limits: limits::read(row.get(7).unwrap_or_default()),
            })
        };
        self.db.prepare_cached(sql)?.query_row([id], read)
    }

    /// Claims whose worker has not been heard of for too long wait again.
    fn end_leases(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let instant = Instant::now();
        let ended: Vec<i64> =
            self.leases.iter().filter(|(_, lease)| lease.until <= instant).map(|(id, _)| *id).collect();
        for id in ended {
            if let Some(lane) = self.unclaim(id)? {
                tracing::warn!(message = id, "A worker was not heard of any more; its message waits again, in doubt.");
                self.db.execute("UPDATE messages SET in_doubt = 1 WHERE id = ?1", [id])?;
                self.put(lane, ms(now), id)?;
            }
        }
        Ok(())
    }

    /// Ends a claim; its lane, where there was one.
    pub fn unclaim(&mut self, id: i64) -> rusqlite::Result<Option<i64>> {
        self.leases.remove(&id);
        self.db
            .prepare_cached("DELETE FROM claims WHERE id = ?1 RETURNING lane")?
            .query_row([id], |row| row.get(0))
            .optional()
    }

    fn settle(&mut self, settled: &Settled, now: Timestamp) -> Result<(), Stop> {
        let id = settled.id;
        let lease = self.leases.get(&id);
        let is_good = lease.is_some_and(|lease| lease.claim.is_none_or(|claim| claim == settled.claim));
        let is_extended = lease.is_some_and(|lease| lease.is_extended);
        if let Settlement::Record { progress } = &settled.settlement {
            if !is_good {
                return Err(Stop::Refused(QueueError::State("its claim has ended".to_owned())));
            }
            self.db
                .prepare_cached("UPDATE messages SET progress = ?1, report = NULL WHERE id = ?2")?
                .execute(params![progress, id])?;
            return Ok(());
        }
        if !is_good {
            return Ok(());
        }
        let Some(lane) = self.unclaim(id)? else { return Ok(()) };
        match &settled.settlement {
            // Its batch was cancelled meanwhile: it is not tried again.
            Settlement::Again { .. } | Settlement::Park { .. } | Settlement::Back if self.is_cancelled(lane)? => {
                self.done(id, lane, (State::Cancelled, b""), now)?;
            }
            Settlement::Done { report, .. } if is_extended => {
                let sql = "UPDATE messages SET report = ?1, progress = NULL, in_doubt = 0 WHERE id = ?2";
                self.db.prepare_cached(sql)?.execute(params![report, id])?;
                self.put(lane, ms(now), id)?;
            }
            Settlement::Done { state, report, event } => {
                self.done(id, lane, (*state, report), now)?;
                if let Some(body) = event {
                    self.tell(id, body, now)?;
                }
            }
            Settlement::Corrupt { report } => self.done(id, lane, (State::Corrupt, report), now)?,
            Settlement::Again { due, progress } => {
                let sql = "UPDATE messages SET progress = ?1, report = NULL, in_doubt = 0 WHERE id = ?2";
                self.db.prepare_cached(sql)?.execute(params![progress, id])?;
                self.put(lane, if is_extended { ms(now) } else { ms(*due) }, id)?;
            }
            Settlement::Park { due, progress, destinations } => {
                let sql = "UPDATE messages SET progress = ?1, in_doubt = 0 WHERE id = ?2";
                self.db.prepare_cached(sql)?.execute(params![progress, id])?;
                self.park(id, lane, ms(*due), destinations)?;
            }
            Settlement::Back => self.put(lane, ms(now), id)?,
            Settlement::Record { .. } => {}
        }
        Ok(())
    }

    /// Settles a message that is neither waiting nor under way any more.
    pub fn done(
        &mut self,
        id: i64,
        lane: i64,
        (state, report): (State, &[u8]),
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        self.unpark(id)?;
        // A dead letter may be tried again, so what it needs for that stays for a while.
        let sql = match state.is_dead() {
            true => "UPDATE messages SET state = ?1, settled = ?2, report = ?3, progress = NULL WHERE id = ?4",
            false => {
                "UPDATE messages SET state = ?1, settled = ?2, report = ?3, progress = NULL, body = NULL WHERE id = ?4"
            }
        };
        self.db.prepare_cached(sql)?.execute(params![state as i64, ms(now), report, id])?;
        self.unsettled = self.unsettled.saturating_sub(1);
        self.settled += 1;
        self.counted.settled += 1;
        self.counted.failed += u64::from(state.is_dead());
        self.tally(lane, State::Queued, -1);
        self.tally(lane, state, 1);
        Ok(())
    }

    /// For tests: as if that much time had gone by since every claim.
    #[cfg(test)]
    pub fn age_leases(&mut self, by: std::time::Duration) {
        self.leases.values_mut().for_each(|lease| lease.until -= by);
    }
}
