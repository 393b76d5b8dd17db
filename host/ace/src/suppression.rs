//! Suppressed addresses, to which no message is sent: entries of the bucket [`BUCKET`] of the key-value store, which the HTTP API and
//! plugins that report feedback write, and the policy `suppression` reads.

use ace_store::keyvalue::{Keyvalue, KeyvalueError};
use jiff::Timestamp;

pub use ace_address::suppression::{
    AddressError, BUCKET, EMAIL, PHONE, Reason, Scope, Suppression, key, key_of, split,
};

/// Some suppressed addresses, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Each with its key.
    pub entries: Vec<(String, Suppression)>,
    /// The key after which the next page starts; `None` on the last page.
    pub next: Option<String>,
}

/// The suppression of an address; `None` if messages are sent to it. Blocks for microseconds.
///
/// # Errors
/// As [`Keyvalue::get`].
pub fn get(store: &Keyvalue, key: &str, now: Timestamp) -> Result<Option<Suppression>, KeyvalueError> {
    Ok(store.get(BUCKET, key, now)?.map(|value| Suppression::read(&value)))
}

/// Suppresses an address, whatever is stored about it.
///
/// # Errors
/// As [`Keyvalue::set`].
pub async fn set(store: &Keyvalue, key: &str, entry: &Suppression, now: Timestamp) -> Result<(), KeyvalueError> {
    store.set(BUCKET, key, entry.to_json(), None, now).await
}

/// Suppresses an address because somebody reported it. An earlier report stays unless the scope becomes wider. Of two concurrent reports
/// about one address, the later write counts.
///
/// # Errors
/// As [`Keyvalue::set`].
pub async fn add(store: &Keyvalue, key: &str, entry: Suppression, now: Timestamp) -> Result<(), KeyvalueError> {
    match get(store, key, now)? {
        Some(known) if !entry.widens(&known) => Ok(()),
        _ => set(store, key, &entry, now).await,
    }
}

/// Sends to an address again. Succeeds if it is not suppressed.
///
/// # Errors
/// As [`Keyvalue::delete`].
pub async fn remove(store: &Keyvalue, key: &str, now: Timestamp) -> Result<(), KeyvalueError> {
    store.delete(BUCKET, key, now).await
}

/// The first suppressed addresses after a key, at most `limit`. Blocks.
///
/// # Errors
/// As [`Keyvalue::list`].
pub fn list(store: &Keyvalue, after: &str, limit: usize, now: Timestamp) -> Result<Page, KeyvalueError> {
    let mut found = store.list(BUCKET, after, limit.saturating_add(1), now)?;
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let next = found.last().filter(|_| !is_last).map(|(key, _)| key.clone());
    let entries = found.into_iter().map(|(key, value)| (key, Suppression::read(&value))).collect();
    Ok(Page { entries, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(reason: Reason) -> Suppression {
        let time = "2026-11-30T00:00:00Z".to_owned();
        Suppression { reason, scope: reason.default_scope(), source: "ses".to_owned(), time, detail: None }
    }

    fn store() -> Keyvalue {
        Keyvalue::load(&crate::config::Keyvalue::default().store(), Timestamp::UNIX_EPOCH).unwrap()
    }

    #[tokio::test]
    async fn a_report_suppresses_until_it_is_removed() {
        let (store, now) = (store(), Timestamp::UNIX_EPOCH);
        let address = key(EMAIL, "Alice@Example.com").unwrap();
        assert_eq!(get(&store, &address, now), Ok(None));
        add(&store, &address, entry(Reason::HardBounce), now).await.unwrap();
        add(&store, &address, entry(Reason::Unsubscribe), now).await.unwrap();
        assert_eq!(get(&store, &address, now), Ok(Some(entry(Reason::HardBounce))), "the wider scope stays");
        set(&store, &address, &entry(Reason::Unsubscribe), now).await.unwrap();
        assert_eq!(get(&store, &address, now), Ok(Some(entry(Reason::Unsubscribe))), "an operator decides");
        remove(&store, &address, now).await.unwrap();
        assert_eq!(get(&store, &address, now), Ok(None));
    }

    #[tokio::test]
    async fn pages_have_every_address_once() {
        let (store, now) = (store(), Timestamp::UNIX_EPOCH);
        for n in 0..25 {
            set(&store, &format!("email:{n:02}@example.com"), &entry(Reason::Manual), now).await.unwrap();
        }
        store.set("other", "email:x@example.com", b"1".to_vec(), None, now).await.unwrap();
        store.set(BUCKET, "email:99@example.com", b"1".to_vec(), None, now).await.unwrap();
        let (mut after, mut keys, mut pages) = (String::new(), Vec::new(), 0);
        loop {
            let page = list(&store, &after, 13, now).unwrap();
            keys.extend(page.entries.iter().map(|(key, _)| key.clone()));
            pages += 1;
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        let expected: Vec<String> = (0..25).chain([99]).map(|n| format!("email:{n:02}@example.com")).collect();
        assert_eq!((keys, pages), (expected, 2));
        let invalid = get(&store, "email:99@example.com", now).unwrap().unwrap();
        assert_eq!((invalid.reason, invalid.scope), (Reason::Manual, Scope::All), "what cannot be read suppresses");
    }
}
