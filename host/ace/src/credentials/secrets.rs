//! Secrets of configured sources. A file is read again when it changes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Refusal;
use crate::config::{Secret, SecretSource};
use ace_store::files::FileStamp;

/// How often a file is looked at.
const CHECK_INTERVAL: SignedDuration = SignedDuration::from_secs(1);
/// When to try again if a secret cannot be read.
const RETRY_DELAY: Duration = Duration::from_secs(60);

/// The secrets of files that were read.
pub(super) struct Secrets {
    now: fn() -> Timestamp,
    files: Mutex<HashMap<PathBuf, Known>>,
}

/// The secret of a file.
#[derive(Clone)]
struct Known {
    secret: Secret,
    stamp: Option<FileStamp>,
    checked: Timestamp,
}

impl Secrets {
    pub(super) fn new(now: fn() -> Timestamp) -> Self {
        Secrets { now, files: Mutex::default() }
    }

    /// The current secret of a source. If its file changed and cannot be read, the last secret stays in use.
    pub(super) async fn read(&self, credential: &str, source: &SecretSource) -> Result<Secret, Refusal> {
        let SecretSource::File(file) = source else {
            return source.read().await.map_err(|e| self.unavailable(credential, &e.to_string()));
        };
        let now = (self.now)();
        let known = self.known(file);
        if let Some(known) = &known
            && now.duration_since(known.checked).abs() < CHECK_INTERVAL
        {
            return Ok(known.secret.clone());
        }
        let stamp = stamp(file).await;
        let secret = match known {
            Some(known) if known.stamp == stamp => known.secret,
            known => match (source.read().await, known) {
                (Ok(secret), _) => secret,
                (Err(error), Some(known)) => {
                    tracing::warn!(
                        "The secret of the credential {credential:?} changed and cannot be read; the last one stays in use: {error}"
                    );
                    known.secret
                }
                (Err(error), None) => return Err(self.unavailable(credential, &error.to_string())),
            },
        };
        let known = Known { secret: secret.clone(), stamp, checked: now };
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(file.clone(), known);
        Ok(secret)
    }

    fn known(&self, file: &Path) -> Option<Known> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).get(file).cloned()
    }

    /// The error for a plugin does not name the file.
    fn unavailable(&self, credential: &str, error: &str) -> Refusal {
        tracing::warn!("The secret of the credential {credential:?} cannot be read: {error}");
        let message = format!("the secret of the credential {credential:?} cannot be read; ACE's log says why");
        Refusal::Unavailable {
            message,
            next_attempt_time: (self.now)().saturating_add(RETRY_DELAY).unwrap_or(Timestamp::MAX),
        }
    }
}

/// The stamp of a file, taken before it is read: if it changes meanwhile, it is read once more.
async fn stamp(file: &Path) -> Option<FileStamp> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || FileStamp::of(&file)).await.ok().flatten()
}
