//! Compares a policy in shadow mode with the actual decisions: counts, and the latest messages on which they differ.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::Ruling;
use crate::message::{Agreement, ChannelType, Message, PolicyReport, Verdict};

/// The most differences that are stored.
const DIFFERENCES_MAX: usize = 50;

/// The comparison of one revision of a policy in shadow mode.
#[derive(Default)]
pub struct ShadowLog(Mutex<Comparison>);

/// Counts and the latest differences.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Comparison {
    /// Verdicts that would have changed nothing.
    pub agrees: u64,
    /// Verdicts that would have changed the outcome.
    pub differs: u64,
    /// Evaluations that failed.
    pub broken: u64,
    /// The latest differences, the newest last.
    pub differences: VecDeque<Difference>,
}

/// A message on which the policy would have made a difference, or failed.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// When it was evaluated.
    pub at: Timestamp,
    /// The message.
    pub uuid: Uuid,
    /// `app_label.name`.
    pub name: String,
    /// The verdict of the policy.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The decision without it.
    pub decided: Vec<(ChannelType, Ruling)>,
}

impl ShadowLog {
    /// Counts one verdict.
    pub fn record(&self, message: &Message, report: &PolicyReport, decided: &[(ChannelType, Ruling)], now: Timestamp) {
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

    /// The comparison so far.
    pub fn comparison(&self) -> Comparison {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Comparison> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
