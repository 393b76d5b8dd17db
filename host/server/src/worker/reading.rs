//! Reads claimed messages and their progress.

use std::sync::{Arc, PoisonError};

use ace::InFlight;
use ace::internals::pipeline::Limit;
use ace::message::{Message, MessageType, Personal, Prepared};
use ace_store::queue::{Claimed, Limits, Priority, Settlement};
use jiff::Timestamp;
use uuid::Uuid;

use super::{ClaimId, Job, Stage, Worker};

/// Batches whose parsed message types are cached.
const BATCHES_MAX: usize = 64;

impl Worker {
    pub(super) fn job(&self, claimed: &Claimed) -> Result<Job, String> {
        if let Some(damage) = &claimed.damage {
            return Err(damage.clone());
        }
        let progress = claimed.progress.as_deref().map(serde_json::from_slice).transpose();
        let stage = progress.and_then(|progress| match (progress, &claimed.report) {
            (kept, Some(report)) => Ok(Stage::Settled(serde_json::from_slice(report)?, kept)),
            (Some(progress), None) => Ok(Stage::InProgress(progress)),
            (None, None) => Ok(Stage::New),
        });
        Ok(Job {
            id: claimed.id,
            claim: claimed.claim,
            message: Arc::new(self.message(claimed)?),
            stage: stage.map_err(|e| format!("its progress: {e}"))?,
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
        // The priority class of a batch that was removed may have been given to another batch.
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
        stage: Stage,
        limits: Option<Limits>,
        interrupted: &[Timestamp],
    ) -> InFlight {
        let snapshot = (self.current)();
        let limit = limits.map(|limits| Limit::of_all(&limits, &snapshot.channels));
        let mut flight = match stage {
            Stage::New => InFlight::new(snapshot, message, limit.clone().unwrap_or_default(), false),
            Stage::InProgress(progress) => InFlight::resume(snapshot, message, progress),
            Stage::Settled(report, kept) => InFlight::reopen(snapshot, message, report, kept),
        };
        if let Some(limit) = limit {
            flight.set_limit(limit);
        }
        flight.add_interruptions(interrupted);
        flight
    }

    /// Sets aside a message that cannot be read, so that it does not stop others.
    pub(super) async fn set_aside(&self, claim_id: ClaimId, uuid: Uuid, reason: &str) {
        tracing::error!(
            message = claim_id.0.get(), message_uuid = %uuid,
            "A stored message cannot be read and is set aside; other messages are still sent: {reason}. \
             Inspect it with: ace messages {uuid}"
        );
        let report = serde_json::json!({"uuid": uuid, "error": reason}).to_string().into_bytes();
        self.settle(claim_id, Settlement::Corrupt { report }, false).await;
    }
}
