//! `keyvalue`: entries and counters in the granted buckets. Dry calls write to an overlay that ends with the call.

use std::time::Duration;

use crate::plugin::grants::Access;
use crate::plugin::runtime::bindings::keyvalue::{Counted, Host, KeyvalueError, Place};
use crate::plugin::runtime::state::State;
use ace_store::keyvalue::{self, Step};

type Answer<T> = wasmtime::Result<Result<T, KeyvalueError>>;

impl Host for State {
    async fn get(&mut self, bucket: String, key: String) -> Answer<Option<Vec<u8>>> {
        self.count_host_call()?;
        let answer = self.allow(&bucket, Access::Read).and_then(|()| {
            let Self { call, services, .. } = self;
            Ok(call.overlay.get(&services.keyvalue, &bucket, &key, services.now())?)
        });
        self.traced(|| format!("keyvalue.get {bucket} {key}: {}", word(&answer)));
        Ok(answer)
    }

    async fn set(&mut self, bucket: String, key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> Answer<()> {
        self.traced(|| format!("keyvalue.set {bucket} {key}"));
        let dry = match self.start_write(&bucket)? {
            Ok(dry) => dry,
            Err(denied) => return Ok(Err(denied)),
        };
        let written = self
            .outside(async |Self { call, services, .. }| {
                if dry {
                    return call.overlay.set(&services.keyvalue, &bucket, &key, value);
                }
                let ttl = ttl_ms.map(Duration::from_millis);
                services.keyvalue.set(&bucket, &key, value, ttl, services.now()).await
            })
            .await;
        Ok(written.map_err(KeyvalueError::from))
    }

    async fn delete(&mut self, bucket: String, key: String) -> Answer<()> {
        self.traced(|| format!("keyvalue.delete {bucket} {key}"));
        let dry = match self.start_write(&bucket)? {
            Ok(dry) => dry,
            Err(denied) => return Ok(Err(denied)),
        };
        let deleted = self
            .outside(async |Self { call, services, .. }| {
                if dry {
                    call.overlay.delete(&services.keyvalue, &bucket, &key)
                } else {
                    services.keyvalue.delete(&bucket, &key, services.now()).await
                }
            })
            .await;
        Ok(deleted.map_err(KeyvalueError::from))
    }

    async fn increment(
        &mut self,
        bucket: String,
        key: String,
        by: i64,
        ttl_ms: Option<u64>,
        once: Option<String>,
    ) -> Answer<i64> {
        self.traced(|| format!("keyvalue.increment {bucket} {key} by {by}"));
        let dry = match self.start_write(&bucket)? {
            Ok(dry) => dry,
            Err(denied) => return Ok(Err(denied)),
        };
        let counted = self
            .outside(async |Self { call, services, .. }| {
                let step = Step { by, ttl: ttl_ms.map(Duration::from_millis), once: once.as_deref() };
                if dry {
                    call.overlay.increment(&services.keyvalue, &bucket, &key, step, services.now())
                } else {
                    services.keyvalue.increment(&bucket, &key, step, services.now()).await
                }
            })
            .await;
        Ok(counted.map_err(KeyvalueError::from))
    }

    async fn count_once(
        &mut self,
        bucket: String,
        key: String,
        token: String,
        by: i64,
        ttl_ms: Option<u64>,
    ) -> Answer<Counted> {
        self.traced(|| format!("keyvalue.count-once {bucket} {key} by {by}"));
        let dry = match self.start_write(&bucket)? {
            Ok(dry) => dry,
            Err(denied) => return Ok(Err(denied)),
        };
        let counted = self
            .outside(async |Self { call, services, .. }| {
                let (store, now) = (&services.keyvalue, services.now());
                if dry {
                    return call.overlay.count_once(store, &bucket, &key, (&token, by), now);
                }
                store.count_once(&bucket, &key, &token, (by, ttl_ms.map(Duration::from_millis)), now).await
            })
            .await;
        let convert = |keyvalue::Counted { at, total, is_first_time }| Counted { at, total, first_time: is_first_time };
        Ok(counted.map(convert).map_err(KeyvalueError::from))
    }

    async fn take_place(
        &mut self,
        bucket: String,
        key: String,
        token: String,
        limit: u32,
        window_ms: u64,
    ) -> Answer<Place> {
        self.traced(|| format!("keyvalue.take-place {bucket} {key}, {limit} within {window_ms} ms"));
        let dry = match self.start_write(&bucket)? {
            Ok(dry) => dry,
            Err(denied) => return Ok(Err(denied)),
        };
        let place = self
            .outside(async |Self { call, services, .. }| {
                let (store, now, window) = (&services.keyvalue, services.now(), Duration::from_millis(window_ms));
                if dry {
                    return call.overlay.take_place(store, &bucket, &key, (&token, limit, window), now);
                }
                store.take_place(&bucket, &key, &token, (limit, window), now).await
            })
            .await;
        let convert = |keyvalue::Place { is_granted, used, next_free }| Place {
            is_granted,
            used,
            next_free: next_free.map(|at| u64::try_from(at).unwrap_or_default()),
        };
        Ok(place.map(convert).map_err(KeyvalueError::from))
    }

    async fn give_place_back(&mut self, bucket: String, key: String, token: String) -> Answer<()> {
        self.traced(|| format!("keyvalue.give-place-back {bucket} {key}"));
        let dry = match self.start_write(&bucket)? {
            Ok(dry) => dry,
            Err(denied) => return Ok(Err(denied)),
        };
        let given_back = self
            .outside(async |Self { call, services, .. }| {
                let (store, now) = (&services.keyvalue, services.now());
                if dry {
                    call.overlay.give_place_back(store, &bucket, &key, &token, now)
                } else {
                    store.give_place_back(&bucket, &key, &token, now).await
                }
            })
            .await;
        Ok(given_back.map_err(KeyvalueError::from))
    }
}

impl State {
    fn allow(&mut self, bucket: &str, access: Access) -> Result<(), KeyvalueError> {
        self.grants.bucket(bucket, access).map_err(|why| KeyvalueError::Denied(self.refuse("keyvalue", why)))
    }

    /// Counts the call and checks the grant. Returns whether it is a dry call.
    fn start_write(&mut self, bucket: &str) -> Answer<bool> {
        self.count_host_call()?;
        self.call.overlay.max_bytes = self.settings.limits.output_bytes;
        Ok(self.allow(bucket, Access::Write).map(|()| self.call.dry))
    }
}

fn word(answer: &Result<Option<Vec<u8>>, KeyvalueError>) -> String {
    match answer {
        Ok(None) => "no entry".to_owned(),
        Ok(Some(value)) => format!("{:?}", String::from_utf8_lossy(value)),
        Err(_) => "failed".to_owned(),
    }
}

impl From<keyvalue::KeyvalueError> for KeyvalueError {
    fn from(error: keyvalue::KeyvalueError) -> Self {
        match error {
            keyvalue::KeyvalueError::Quota(text) | keyvalue::KeyvalueError::Full(text) => KeyvalueError::Quota(text),
            keyvalue::KeyvalueError::Unavailable(text) => KeyvalueError::Unavailable(text),
        }
    }
}
