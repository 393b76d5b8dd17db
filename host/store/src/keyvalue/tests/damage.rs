//! Damaged files: damage affects only the damaged entries.

use super::*;
use crate::sqlite::damage::testing::{spoil, spoil_leaf};

fn writer(file: &Path) -> Writer {
    Writer::new(database::open(file, Default::default()).expect("opened"), &settings(Some(file), 100_000))
}

fn timed(key: &str, expires: i64, now: i64) -> Write {
    Write { change: Change::Set { value: b"v".to_vec(), expires: Some(expires) }, now, ..set(key, vec![]) }
}

#[test]
fn a_damaged_page_affects_only_its_entries() {
    let folder = folder();
    let file = folder.path().join("kv.db");
    let key = |n: u32| format!("key-{n:04}-{}", "k".repeat(100));
    let mut first = writer(&file);
    let all: Vec<Write> = (0..400).map(|n| timed(&key(n), if n % 2 == 0 { 1_000 } else { 9_000 }, 0)).collect();
    assert!(first.commit(&all).iter().all(Result::is_ok));
    drop(first);
    spoil_leaf(&file, "entries", 5);
    let mut writer = writer(&file);
    let lost: Vec<u32> = (0..400).filter(|n| database::value(&writer.db, "b", &key(*n), 0).is_err()).collect();
    assert!((5..60).contains(&lost.len()), "{lost:?}");
    // All in one transaction, beside which half of all is over and swept out.
    let others = [0, 399].map(|n| timed(&key(n), 9_000, 2_000));
    let damaged = [lost[0], lost[2]].map(|n| timed(&key(n), 9_000, 2_000));
    let [one, two] = others;
    let [three, four] = damaged;
    let answers = writer.commit(&[one, three, set("new", b"v".to_vec()), four, two]);
    assert!(matches!(answers[..], [Ok(_), Err(_), Ok(_), Err(_), Ok(_)]), "{answers:?}");
    let Err(KeyvalueError::Unavailable(error)) = &answers[1] else { panic!("{answers:?}") };
    assert!(error.contains(&format!("b/{} is damaged", key(lost[0]))), "{error}");
    for n in 0..300 {
        assert_eq!(writer.commit_one(&timed(&format!("later-{n}"), 9_000, 2_001)), Ok(Reply::Done));
    }
    let left = |n: &u32| database::value(&writer.db, "b", &key(*n), 0).is_ok_and(|value| value.is_some());
    let kept: Vec<u32> = (1..399).filter(|n| !lost.contains(n)).filter(left).filter(|n| n % 2 == 0).collect();
    assert!(kept.len() < 60, "swept out, except what lies beside the damaged page: {kept:?}");
    assert!((1..399).step_by(2).filter(|n| !lost.contains(n)).all(|n| left(&n)), "and nothing else");
}

#[tokio::test]
async fn damaged_rows_stop_neither_the_start_nor_the_loading_of_files() {
    let folder = folder();
    let file = folder.path().join("kv.db");
    let mut first = writer(&file);
    for key in ["over", "counter", "sound"] {
        first.commit_one(&timed(key, 1_000, 0)).expect("written");
    }
    drop(first);
    spoil(&file, "UPDATE sqlite_schema SET sql = replace(sql, 'STRICT, ', '') WHERE name = 'entries'");
    spoil(
        &file,
        "UPDATE entries SET key = CAST(x'ff' AS TEXT) WHERE key = 'over';
        UPDATE entries SET counter = 'many' WHERE key = 'counter';
        INSERT INTO entries (bucket, key, value) VALUES ('facts', 'broken', 'v');
        UPDATE entries SET counter = 'many' WHERE key = 'broken'",
    );
    let facts = folder.path().join("facts.ndjson");
    let line = |key: &str| format!("{{\"bucket\": \"facts\", \"key\": \"{key}\", \"value\": \"new\"}}\n");
    fs::write(&facts, ["one", "broken", "two"].map(line).concat()).expect("written");
    let settings = Settings { files: vec![facts], ..settings(Some(&file), 100_000) };
    let kv = Keyvalue::load(&settings, at(2)).unwrap_or_else(|e| panic!("{e}"));
    for key in ["one", "two"] {
        assert_eq!(kv.get("facts", key, at(2)), Ok(Some(b"new".to_vec())), "{key}");
    }
    assert!(kv.increment("b", "counter", step(1), at(0)).await.is_err(), "its own fault");
    kv.set("b", "other", b"v".to_vec(), KEEP, at(2)).await.expect("nobody else's");
    let left: Vec<Vec<u8>> = {
        let db = Connection::open(&file).expect("opened");
        let mut keys = db.prepare("SELECT CAST(key AS BLOB) FROM entries WHERE bucket = 'b'").expect("asked");
        let keys = keys.query_map([], |row| row.get(0)).expect("asked");
        keys.collect::<Result<_, _>>().expect("read")
    };
    assert_eq!(left, [b"counter".to_vec(), b"other".to_vec()], "a name that is no text is swept out as well");
}

#[test]
fn unreadable_sizes_disable_the_limits() {
    let folder = folder();
    let file = folder.path().join("kv.db");
    writer(&file).commit_one(&set("k", b"v".to_vec())).expect("written");
    spoil(&file, "UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = 'store'");
    spoil(&file, "UPDATE store SET size = 'many'");
    let mut writer = writer(&file);
    assert_eq!(writer.commit(&[set("l", vec![]), set("m", vec![])]), [Ok(Reply::Done), Ok(Reply::Done)]);
}
