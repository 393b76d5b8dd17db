//! How a policy in shadow has compared with what was decided: counts, and the latest messages on which it differed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::Ruling;
use crate::message::{Agreement, ChannelType, Message, PolicyReport, Verdict};

/// Differences that are kept.
const DIFFERENCES_MAX: usize = 50;

/// What one revision of a policy in shadow has come to so far.
#[derive(Default)]
pub struct ShadowLog(Mutex<Comparison>);

/// Counts, and the latest differences, the latest last.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Comparison {
    /// Verdicts that would have changed nothing.
    pub agrees: u64,
    /// Verdicts that would have changed the outcome.
    pub differs: u64,
    /// Times that it could not be asked.
    pub broken: u64,
    /// The latest ones.
    pub differences: VecDeque<Difference>,
}

/// One message on which the policy would have made a difference, or broke.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// When.
    pub at: Timestamp,
    /// The message.
    pub uuid: Uuid,
    /// `app_label.name`.
    pub name: String,
    /// What the policy in shadow said.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What was decided without it.
    pub decided: Vec<(ChannelType, Ruling)>,
}

impl ShadowLog {
    /// Counts one verdict.
    pub fn note(&self, message: &Message, report: &PolicyReport, decided: &[(ChannelType, Ruling)], now: Timestamp) {
        let mut comparison = self.lock();
        match report.shadow {
            Some(Agreement::Agrees) => return comparison.agrees += 1,
            Some(Agreement::Differs) => comparison.differs += 1,
            Some(Agreement::Broken) => comparison.broken += 1,
            None => return,
        }
        if comparison.differences.len() == DIFFERENCES_MAX {
            comparison.differences.pop_front();
        }
        comparison.differences.push_back(Difference {
            at: now,
            uuid: message.uuid,
            name: message.unique_name(),
            verdict: report.verdict.clone(),
            decided: decided.to_vec(),
        });
    }

    /// What was counted until now.
    pub fn show(&self) -> Comparison {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Comparison> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
