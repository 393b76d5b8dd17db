//! Voluntary application server identification for Web Push (RFC 8292).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::Problem;
use super::jwt::{SigningKey, signed};
use crate::config::Secret;
use crate::config::credentials::keys;

/// How long a token is valid: half of what push services allow, as its tools have it.
const LIFETIME: SignedDuration = SignedDuration::from_hours(12);
/// How long a token is used again for its audience.
const REUSE: SignedDuration = SignedDuration::from_hours(1);
/// The audiences whose tokens are kept. There are few push services.
const AUDIENCES_MAX: usize = 64;

/// The tokens of one credential, which has one for each push service.
#[derive(Default)]
pub(super) struct Vapid(Mutex<Signed>);

#[derive(Default)]
struct Signed {
    /// The key that signed them.
    key: Option<Secret>,
    by_audience: HashMap<String, (String, Timestamp)>,
}

impl Vapid {
    /// The value of the Authorization header for an audience.
    pub(super) fn authorization(
        &self,
        (key, public_key): (&Secret, Option<&str>),
        (audience, subject): (&str, &str),
        now: Timestamp,
    ) -> Result<String, Problem> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.key.as_ref() != Some(key) {
            *kept = Signed { key: Some(key.clone()), by_audience: HashMap::new() };
        }
        if let Some((value, made)) = kept.by_audience.get(audience)
            && now.duration_since(*made).abs() < REUSE
        {
            return Ok(value.clone());
        }
        let pair = keys::vapid_key(key.expose(), public_key)
            .map_err(|problem| Problem::Credential(format!("has a key that {problem}")))?;
        let end = now.saturating_add(LIFETIME).unwrap_or(now).as_second();
        let claims = json!({"aud": audience, "exp": end, "sub": subject});
        let token = signed(SigningKey::Ec(&pair), None, &claims).map_err(Problem::Credential)?;
        let value = format!("vapid t={token},k={}", keys::public_half(&pair));
        if kept.by_audience.len() >= AUDIENCES_MAX {
            kept.by_audience.clear();
        }
        kept.by_audience.insert(audience.to_owned(), (value.clone(), now));
        Ok(value)
    }
}
