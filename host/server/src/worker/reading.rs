//! What the queue claimed, read: messages, and how far they are.

use std::sync::{Arc, PoisonError};

use ace::InFlight;
use ace::internals::pipeline::Limit;
use ace::message::{Message, MessageType, Personal, Prepared};
use ace_store::queue::{Claimed, Limits, Priority, Settlement};
use jiff::Timestamp;
use uuid::Uuid;

use super::{Job, Lent, Stands, Worker};

/// Batches whose message types are kept ready.
const BATCHES_MAX: usize = 64;

impl Worker {
    pub(super) fn job(&self, claimed: &Claimed) -> Result<Job, String> {
        if let Some(damage) = &claimed.damage {
            return Err(damage.clone());
        }
        let progress = claimed.progress.as_deref().map(serde_json::from_slice).transpose();
        let stands = progress.and_then(|progress| match (progress, &claimed.report) {
            (kept, Some(report)) => Ok(Stands::Settled(serde_json::from_slice(report)?, kept)),
            (Some(progress), None) => Ok(Stands::Under(progress)),
            (None, None) => Ok(Stands::AtTheBeginning),
        });
        Ok(Job {
            id: claimed.id,
            claim: claimed.claim,
            message: Arc::new(self.message(claimed)?),
            stands: stands.map_err(|e| format!("its progress: {e}"))?,
            limits: claimed.limits.clone(),
            interrupted: claimed.interrupted.clone(),
            trace: claimed.trace.clone(),
            priority: claimed.priority,
            since: claimed.since,
        })
    }

    pub(super) fn message(&self, claimed: &Claimed) -> Result<Message, String> {
        match &claimed.kind {
            Some(kind) if Personal::is_one(&claimed.body) => {
                let personal = Personal::from_own_json(&claimed.body).map_err(|e| e.to_string())?;
                Ok(self.prepared(claimed.priority, kind)?.message(claimed.uuid, personal))
            }
            _ => Message::from_own_json(&claimed.body).map_err(|errors| errors.to_string()),
        }
    }

    /// What the messages of a batch share.
    pub(super) fn prepared(&self, priority: Priority, kind: &Arc<[u8]>) -> Result<Arc<Prepared>, String> {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        // The class of a batch that is gone may be another batch's by now.
        if let Some((_, prepared)) = batches.get(&priority).filter(|(known, _)| known == kind) {
            return Ok(prepared.clone());
        }
        let read = MessageType::from_json(kind).map_err(|e| format!("its batch's message type: {e}"))?;
        let prepared = Arc::new(Prepared::new(read));
        if batches.len() >= BATCHES_MAX {
            batches.clear();
        }
        batches.insert(priority, (kind.clone(), prepared.clone()));
        Ok(prepared)
    }

    pub(super) fn flight(
        &self,
        message: Arc<Message>,
        stands: Stands,
        limits: Option<Limits>,
        interrupted: &[Timestamp],
    ) -> InFlight {
        let snapshot = (self.current)();
        let limit = limits.map(|limits| Limit::of_all(&limits, &snapshot.channels));
        let mut flight = match stands {
            Stands::AtTheBeginning => InFlight::new(snapshot, message, limit.clone().unwrap_or_default(), false),
            Stands::Under(progress) => InFlight::resume(snapshot, message, progress),
            Stands::Settled(report, kept) => InFlight::reopen(snapshot, message, report, kept),
        };
        if let Some(limit) = limit {
            flight.allow(limit);
        }
        flight.was_interrupted(interrupted);
        flight
    }

    /// A message that cannot be read any more stops nobody else.
    pub(super) async fn set_aside(&self, lent: Lent, uuid: Uuid, reason: &str) {
        tracing::error!(
            message = lent.0.get(), message_uuid = %uuid,
            "What is stored of a message cannot be read; it is set aside, and all others go on: {reason}. \
             Look at it with: ace messages {uuid}"
        );
        let report = serde_json::json!({"uuid": uuid, "error": reason}).to_string().into_bytes();
        self.settle(lent, Settlement::Corrupt { report }, false).await;
    }
}
