//! Places: a limited number of tokens within a sliding window.

use super::KeyvalueError;
use super::database::PlaceUsage;

/// A request of a token for a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlaceRequest {
    pub token: String,
    /// At least 1.
    pub limit: u32,
    pub window_ms: i64,
}

/// The answer to a request for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The token has a place, from this call or an earlier one.
    pub is_granted: bool,
    /// Places in use within the window.
    pub used: u32,
    /// When the next place becomes free, in milliseconds since 1970; `None` if one is free or the token has one.
    pub next_free: Option<i64>,
}

impl PlaceRequest {
    /// Decides on the request, given the places in use.
    pub(super) fn decide(&self, used: PlaceUsage) -> Place {
        let number = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
        if used.is_held {
            return Place { is_granted: true, used: number(used.n), next_free: None };
        }
        if used.n < i64::from(self.limit) {
            return Place { is_granted: true, used: number(used.n + 1), next_free: None };
        }
        let next_free = used.blocked_by.map(|at| at.saturating_add(self.window_ms));
        Place { is_granted: false, used: number(used.n), next_free }
    }
}

pub(super) fn not_places(bucket: &str, key: &str) -> KeyvalueError {
    KeyvalueError::Unavailable(format!("{bucket}/{key} does not hold places"))
}
