//! Reads a database of the build of 2026-11-30 (tests/upgrade/keyvalue.sql, as SQL): values, counters, tokens and places are unchanged.
//!
//! With `ACE_WRITE_UPGRADE=1` the current build writes the file if it is missing. That is needed only for a new version of the tables,
//! under another name.

use std::path::PathBuf;

use super::*;
use crate::sqlite::dump::dump;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

async fn fill(kv: &Keyvalue) {
    kv.set("facts", "ada", b"\x00\xffraw".to_vec(), KEEP, at(100)).await.expect("fits");
    kv.set("facts", "bo", b"{}".to_vec(), seconds(1_000), at(100)).await.expect("fits");
    kv.increment("counts", "plain", step(5), at(100)).await.expect("fits");
    let once = |token| Step { by: 1, ttl: seconds(1_000), once: Some(token) };
    for token in ["a", "b", "a"] {
        kv.increment("counts", "once", once(token), at(100)).await.expect("fits");
    }
    kv.count_once("counts", "told", "a", (3, KEEP), at(100)).await.expect("fits");
    kv.count_once("counts", "told", "b", (3, KEEP), at(101)).await.expect("fits");
    for (token, second) in [("a", 100), ("b", 200)] {
        kv.take_place("places", "mail", token, (2, WEEK), at(second)).await.expect("fits");
    }
    let plugins = kv.for_plugins();
    plugins.set("plugins", "k", b"v".to_vec(), KEEP, at(100)).await.expect("fits");
}

async fn earlier_store(folder: &Path) -> Keyvalue {
    let sql = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/upgrade/keyvalue.sql"));
    if std::env::var_os("ACE_WRITE_UPGRADE").is_some() && !sql.exists() {
        let file = folder.join("now.db");
        fill(&on_disk(&file)).await;
        fs::write(&sql, dump(&file)).expect("written");
    }
    let file = folder.join("then.db");
    let db = Connection::open(&file).expect("opened");
    db.execute_batch(&fs::read_to_string(sql).expect("it is committed")).expect("loaded");
    drop(db);
    on_disk(&file)
}

#[tokio::test]
async fn entries_tokens_and_places_are_unchanged() {
    let folder = folder();
    let kv = earlier_store(folder.path()).await;
    assert_eq!(kv.get("facts", "ada", at(9_000)), Ok(Some(b"\x00\xffraw".to_vec())));
    assert_eq!(kv.get("facts", "bo", at(1_099)), Ok(Some(b"{}".to_vec())));
    assert_eq!(kv.get("facts", "bo", at(1_100)), Ok(None));
    assert_eq!(kv.get("plugins", "k", at(9_000)), Ok(Some(b"v".to_vec())));
    assert_eq!(kv.increment("counts", "plain", step(1), at(200)).await, Ok(6));
    let once = |token| Step { by: 1, ttl: seconds(1_000), once: Some(token) };
    assert_eq!(kv.increment("counts", "once", once("b"), at(200)).await, Ok(2), "it was counted");
    assert_eq!(kv.increment("counts", "once", once("c"), at(200)).await, Ok(3));
    assert_eq!(kv.get("counts", "once", at(1_100)), Ok(None), "the end of its window is unchanged");
    let told = kv.count_once("counts", "told", "a", (3, KEEP), at(200)).await;
    assert_eq!(told, Ok(Counted { at: 3, total: 6, is_first_time: false }));
    let taken = |token, second| kv.take_place("places", "mail", token, (2, WEEK), at(second));
    let week = WEEK.as_secs() as i64;
    assert!(taken("a", 300).await.expect("asked").is_granted, "it has one");
    assert!(!taken("c", 300).await.expect("asked").is_granted, "both are in use");
    assert!(taken("c", 101 + week).await.expect("asked").is_granted, "the first is free again");
    assert!(!taken("d", 101 + week).await.expect("asked").is_granted);
}
