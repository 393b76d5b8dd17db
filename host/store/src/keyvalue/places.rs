//! Places: at most so many tokens within a sliding window.

use super::KeyvalueError;
use super::database::Used;

/// A token that wants one of the places of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub token: String,
    /// At least 1.
    pub limit: u32,
    pub window_ms: i64,
}

/// Whether a token has one of the places of a sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// It has one: now, or since an earlier call.
    pub is_granted: bool,
    /// Places in use within the window.
    pub used: u32,
    /// When the next one comes free, in milliseconds since 1970. `None`: one is free, or the token has its own.
    pub next_free: Option<i64>,
}

impl Wanted {
    /// Decides whether a token gets a place, given the places in use.
    pub fn judge(&self, used: Used) -> Place {
        let number = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
        if used.is_held {
            return Place { is_granted: true, used: number(used.n), next_free: None };
        }
        if used.n < i64::from(self.limit) {
            return Place { is_granted: true, used: number(used.n + 1), next_free: None };
        }
        let next_free = used.in_the_way.map(|at| at.saturating_add(self.window_ms));
        Place { is_granted: false, used: number(used.n), next_free }
    }
}

pub(super) fn no_places(bucket: &str, key: &str) -> KeyvalueError {
    KeyvalueError::Unavailable(format!("{bucket}/{key} holds a value that is not places"))
}
