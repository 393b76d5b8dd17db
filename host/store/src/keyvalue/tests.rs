use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;

mod caps;
mod damage;
mod earlier;

const KEEP: Option<Duration> = None;

fn settings(database: Option<&Path>, max_entries: usize) -> Settings {
    let database = database.map(Path::to_owned);
    Settings { database, max_entries, max_value_bytes: 8, ..Default::default() }
}

fn memory(max_entries: usize) -> Keyvalue {
    Keyvalue::load(&settings(None, max_entries), at(0)).expect("opened")
}

fn on_disk(file: &Path) -> Keyvalue {
    Keyvalue::load(&settings(Some(file), 100_000), at(0)).expect("opened")
}

/// A store in memory, and one in a file.
fn both(max_entries: usize, folder: &Path) -> [Keyvalue; 2] {
    let file = folder.join("both.db");
    [memory(max_entries), Keyvalue::load(&settings(Some(&file), max_entries), at(0)).expect("opened")]
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

fn step(by: i64) -> Step<'static> {
    Step { by, ..Step::default() }
}

/// Why a store with these settings does not open.
fn refusal(settings: &Settings) -> String {
    Keyvalue::load(settings, at(0)).err().expect("refused").to_string()
}

#[tokio::test]
async fn a_value_lives_until_its_time_is_over() {
    let folder = folder();
    for kv in both(10, folder.path()) {
        kv.set("b", "k", b"v".to_vec(), seconds(5), at(100)).await.expect("fits");
        assert_eq!(kv.get("b", "k", at(104)), Ok(Some(b"v".to_vec())));
        assert_eq!(kv.get("b", "k", at(105)), Ok(None));
        assert_eq!(kv.get("other", "k", at(104)), Ok(None));
        kv.set("b", "k", b"w".to_vec(), Some(Duration::MAX), at(105)).await.expect("fits");
        assert_eq!(kv.get("b", "k", at(1_000_000_000)), Ok(Some(b"w".to_vec())));
        kv.delete("b", "k", at(106)).await.expect("deleted");
        kv.delete("b", "k", at(106)).await.expect("none there is no error");
        assert_eq!(kv.get("b", "k", at(106)), Ok(None));
    }
}

#[tokio::test]
async fn entries_of_the_host_are_in_no_bucket_that_others_can_name() {
    let folder = folder();
    for kv in both(10, folder.path()) {
        kv.set_host_entry("k", b"more than 8 bytes".to_vec(), seconds(5), at(100)).await.expect("fits");
        assert_eq!(kv.host_entry("k", at(104)), Ok(Some(b"more than 8 bytes".to_vec())));
        assert_eq!(kv.host_entry("k", at(105)), Ok(None));
        assert!(matches!(kv.get(HOST_BUCKET, "k", at(104)), Err(KeyvalueError::Quota(_))));
        assert!(matches!(kv.delete(HOST_BUCKET, "k", at(104)).await, Err(KeyvalueError::Quota(_))));
    }
}

#[tokio::test]
async fn a_counter_counts_a_token_once_and_keeps_its_window() {
    let folder = folder();
    for kv in both(10, folder.path()) {
        let count = async |by, token, second| {
            let step = Step { by, ttl: seconds(60), once: Some(token) };
            kv.increment("b", "k", step, at(second)).await
        };
        assert_eq!(count(1, "m1", 0).await, Ok(1));
        assert_eq!(count(1, "m1", 1).await, Ok(1));
        assert_eq!(count(2, "m2", 59).await, Ok(3));
        assert_eq!(kv.get("b", "k", at(59)), Ok(Some(b"3".to_vec())));
        assert_eq!(kv.increment("b", "k", step(0), at(59)).await, Ok(3), "0 reads");
        assert_eq!(count(1, "m1", 60).await, Ok(1), "the window is over");
        assert_eq!(kv.increment("b", "none", step(0), at(60)).await, Ok(0));
        assert_eq!(kv.get("b", "none", at(60)), Ok(None), "reading makes no counter");
    }
}

#[tokio::test]
async fn a_token_belongs_to_one_counter_and_ends_with_it() {
    let folder = folder();
    for kv in both(100, folder.path()) {
        let once = Step { by: 1, ttl: KEEP, once: Some("m") };
        assert_eq!(kv.increment("b", "1", once, at(0)).await, Ok(1));
        assert_eq!(kv.increment("b", "2", once, at(0)).await, Ok(1));
        assert_eq!(kv.increment("c", "1", once, at(0)).await, Ok(1));
        kv.delete("b", "1", at(0)).await.expect("deleted");
        assert_eq!(kv.increment("b", "1", once, at(0)).await, Ok(1));
        kv.set("b", "2", b"7".to_vec(), KEEP, at(0)).await.expect("fits");
        assert_eq!(kv.increment("b", "2", once, at(0)).await, Ok(8));
        assert_eq!(kv.increment("b", "2", once, at(0)).await, Ok(8));
        assert_eq!(kv.increment("c", "1", once, at(0)).await, Ok(1));
    }
}

#[tokio::test]
async fn values_are_not_counted_and_counts_saturate() {
    let kv = memory(10);
    kv.set("b", "k", b"text".to_vec(), KEEP, at(0)).await.expect("fits");
    assert!(matches!(kv.increment("b", "k", step(1), at(0)).await, Err(KeyvalueError::Unavailable(_))));
    assert_eq!(kv.increment("b", "n", step(i64::MAX), at(0)).await, Ok(i64::MAX));
    assert_eq!(kv.increment("b", "n", step(1), at(0)).await, Ok(i64::MAX));
    assert_eq!(kv.increment("b", "n", step(-1), at(0)).await, Ok(i64::MAX - 1));
}

#[tokio::test]
async fn a_full_store_rejects_entries_until_others_expire() {
    let folder = folder();
    for kv in both(2, folder.path()) {
        let set = async |key, ttl, second| kv.set("b", key, vec![], ttl, at(second)).await;
        set("1", seconds(1), 0).await.expect("fits");
        set("2", KEEP, 0).await.expect("fits");
        assert!(matches!(set("3", KEEP, 0).await, Err(KeyvalueError::Full(_))));
        set("2", KEEP, 0).await.expect("replacing needs no room");
        set("3", KEEP, 1).await.expect("the first has expired");
        kv.delete("b", "3", at(1)).await.expect("deleted");
        set("4", KEEP, 1).await.expect("deleting makes room");
    }
}

#[tokio::test]
async fn tokens_fill_the_store_as_entries_do() {
    let folder = folder();
    for kv in both(4, folder.path()) {
        let count = async |token, second| {
            kv.increment("b", "k", Step { by: 1, ttl: seconds(10), once: Some(token) }, at(second)).await
        };
        assert_eq!([count("1", 0).await, count("2", 0).await, count("3", 0).await], [Ok(1), Ok(2), Ok(3)]);
        assert!(matches!(count("4", 0).await, Err(KeyvalueError::Full(_))));
        assert_eq!(count("3", 0).await, Ok(3), "a repeated one needs no room");
        assert_eq!(kv.increment("b", "k", step(1), at(0)).await, Ok(4), "nor one without a token");
        for key in ["1", "2", "3", "4"] {
            kv.set("other", key, vec![], KEEP, at(10)).await.expect("they went with their counter");
        }
        assert!(matches!(kv.set("other", "5", vec![], KEEP, at(10)).await, Err(KeyvalueError::Full(_))));
    }
}

#[tokio::test]
async fn names_and_values_have_limits_and_any_characters() {
    let kv = memory(10);
    let odd = "ключ/🦀 \0'\"%\n";
    kv.set("b", odd, vec![0, 255], KEEP, at(0)).await.expect("fits");
    assert_eq!(kv.get("b", odd, at(0)), Ok(Some(vec![0, 255])));
    assert_eq!(kv.get("b", "ключ/🦀 ", at(0)), Ok(None));
    let (longest, too_long) = ("é".repeat(256), "é".repeat(257));
    kv.set("b", &longest, vec![0; 8], KEEP, at(0)).await.expect("fits");
    let quota = |error: KeyvalueError, describe: &str| {
        assert!(matches!(&error, KeyvalueError::Quota(text) if text.contains(describe)), "{error:?}");
    };
    quota(kv.get("b", &too_long, at(0)).unwrap_err(), "a key or token of 514 bytes, the limit is 512");
    quota(kv.set("b", "k", vec![0; 9], KEEP, at(0)).await.unwrap_err(), "b/k: 9 bytes, the limit is 8");
    quota(kv.get("a b", "k", at(0)).unwrap_err(), "\"a b\" is not a valid bucket name");
    quota(kv.delete("", "k", at(0)).await.unwrap_err(), "is not a valid bucket name");
    let once = Step { by: 1, ttl: KEEP, once: Some(&too_long) };
    quota(kv.increment("b", "k", once, at(0)).await.unwrap_err(), "a key or token of 514 bytes");
}

#[tokio::test]
async fn a_file_keeps_everything() {
    let folder = folder();
    let file = folder.path().join("kv.db");
    let once = Step { by: 1, ttl: seconds(60), once: Some("m") };
    {
        let kv = on_disk(&file);
        kv.set("b", "stays", b"v".to_vec(), KEEP, at(0)).await.expect("fits");
        kv.set("b", "goes", b"v".to_vec(), seconds(10), at(0)).await.expect("fits");
        assert_eq!(kv.increment("b", "n", once, at(0)).await, Ok(1));
    }
    let kv = on_disk(&file);
    assert_eq!(kv.get("b", "stays", at(99)), Ok(Some(b"v".to_vec())));
    assert_eq!((kv.get("b", "goes", at(9)), kv.get("b", "goes", at(10))), (Ok(Some(b"v".to_vec())), Ok(None)));
    assert_eq!(kv.increment("b", "n", once, at(59)).await, Ok(1), "the token was counted before");
    assert_eq!(kv.increment("b", "n", once, at(60)).await, Ok(1), "the window is over");
    drop(kv);
    let full = Keyvalue::load(&settings(Some(&file), 1), at(60)).expect("a store may be fuller than is now allowed");
    assert!(matches!(full.set("b", "new", vec![], KEEP, at(60)).await, Err(KeyvalueError::Full(_))));
    assert_eq!(full.get("b", "stays", at(60)), Ok(Some(b"v".to_vec())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_increments_at_once_count_exactly() {
    let folder = folder();
    let file = folder.path().join("kv.db");
    // Two handles on the file are as good as two processes: they share nothing but the file.
    let handles = [Arc::new(on_disk(&file)), Arc::new(on_disk(&file))];
    let memory = Arc::new(memory(100_000));
    let count = async |stores: [Arc<Keyvalue>; 2]| {
        let tasks: Vec<_> = (0..16)
            .map(|task| {
                let kv = stores[task % 2].clone();
                tokio::spawn(async move {
                    for turn in 0..50 {
                        kv.increment("b", "all", step(1), at(0)).await.expect("counted");
                        let token = turn.to_string();
                        let once = Step { by: 1, ttl: KEEP, once: Some(&token) };
                        kv.increment("b", "once", once, at(0)).await.expect("counted");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        for kv in stores {
            assert_eq!(kv.get("b", "all", at(0)), Ok(Some(b"800".to_vec())));
            assert_eq!(kv.get("b", "once", at(0)), Ok(Some(b"50".to_vec())));
        }
    };
    count([memory.clone(), memory]).await;
    count(handles).await;
}

#[test]
fn several_processes_may_create_a_file_at_once() {
    let folder = folder();
    let file = folder.path().join("kv.db");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| on_disk(&file).get("b", "k", at(0)).expect("it serves"));
        }
    });
}

fn with_facts(database: &Path, facts: &[(&str, &str)]) -> Settings {
    let file = |(name, text): &(&str, &str)| {
        let file = database.with_file_name(name);
        fs::write(&file, text).expect("written");
        file
    };
    Settings { files: facts.iter().map(file).collect(), ..settings(Some(database), 3) }
}

#[tokio::test]
async fn files_replace_entries_at_each_start() {
    let folder = folder();
    let database = folder.path().join("kv.db");
    let fact = |key: &str, value: &str| format!("{{\"bucket\": \"b\", \"key\": \"{key}\", \"value\": {value}}}\n");
    let first = fact("text", "\"v\\u0000\"") + "\n  \n" + &fact("json", "[1, 2]");
    let facts = with_facts(&database, &[("1.ndjson", &first), ("2.ndjson", &fact("json", "7"))]);
    for _ in 0..2 {
        let kv = Keyvalue::load(&facts, at(0)).expect("loaded");
        assert_eq!(kv.get("b", "text", at(0)), Ok(Some(b"v\0".to_vec())));
        assert_eq!(kv.get("b", "json", at(0)), Ok(Some(b"7".to_vec())), "the later file");
        kv.increment("b", "json", Step { by: 1, ttl: KEEP, once: Some("m") }, at(0)).await.expect("counted");
        assert!(kv.set("b", "4", vec![], KEEP, at(0)).await.is_err(), "two facts and a token fill it");
        kv.set("b", "text", b"other".to_vec(), seconds(1), at(0)).await.expect("fits");
    }
}

#[test]
fn an_error_in_a_file_names_its_line_and_nothing_is_loaded() {
    let folder = folder();
    let database = folder.path().join("kv.db");
    let good = "{\"bucket\": \"b\", \"key\": \"k\", \"value\": \"v\"}\n";
    let long_key = format!("{{\"bucket\": \"b\", \"key\": \"{}\", \"value\": 1}}", "k".repeat(513));
    let long_line = format!("\"{}\"", " ".repeat(100_000));
    let cases = [
        ("{\"bucket\": \"b\"}", "missing field `key`"),
        ("{\"bucket\": \"b c\", \"key\": \"k\", \"value\": 1}", "\"b c\" is not a valid bucket name"),
        ("{\"bucket\": \"b\", \"key\": \"k\", \"value\": \"123456789\"}", "9 bytes, the limit is 8"),
        (&long_key, "a key or token of 513 bytes, the limit is 512"),
        (&long_line, "is longer than"),
        ("{\"bucket\": \"b\", \"key\": \"k\", \"value\": 1, \"ttl\": 1}", "unknown field `ttl`"),
    ];
    for (bad, describe) in cases {
        let facts = with_facts(&database, &[("facts.ndjson", &format!("{good}{bad}"))]);
        let message = refusal(&facts);
        assert!(message.contains("facts.ndjson:2: ") && message.contains(describe), "{message}");
        assert_eq!(on_disk(&database).get("b", "k", at(0)), Ok(None));
    }
    let many: String = (0..4).map(|n| good.replace("\"k\"", &format!("\"{n}\""))).collect();
    let message = refusal(&with_facts(&database, &[("facts.ndjson", &many)]));
    assert!(message.contains("facts.ndjson:4: the store is full: 3 entries (keyvalue.max-entries)"), "{message}");
}

#[test]
fn a_file_of_another_kind_is_rejected_and_not_changed() {
    let folder = folder();
    let garbage = folder.path().join("garbage.db");
    fs::write(&garbage, "no database at all, but long enough for a header ".repeat(100)).expect("written");
    let before = fs::read(&garbage).expect("read");
    let message = refusal(&settings(Some(&garbage), 1));
    assert!(
        message.starts_with(garbage.to_str().unwrap()) && message.contains("is not a SQLite database"),
        "{message}"
    );
    assert_eq!(fs::read(&garbage).expect("read"), before);

    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE auth_user (id)").unwrap();
    let before = fs::read(&foreign).expect("read");
    assert!(refusal(&settings(Some(&foreign), 1)).contains("the database of another program"));
    assert_eq!(fs::read(&foreign).expect("read"), before);

    let later = folder.path().join("later.db");
    drop(on_disk(&later));
    Connection::open(&later).unwrap().pragma_update(None, "user_version", 3).unwrap();
    assert!(refusal(&settings(Some(&later), 1)).contains("a later ACE wrote it: its tables have version 3"));
}

#[test]
fn a_place_that_cannot_be_written_is_refused() {
    let folder = folder();
    let missing = folder.path().join("none/kv.db");
    assert!(refusal(&settings(Some(&missing), 1)).contains("its folder must exist"));
    assert!(refusal(&settings(Some(folder.path()), 1)).contains("cannot be opened"));

    let file = folder.path().join("kv.db");
    drop(on_disk(&file));
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(&file, mode(0o444)).unwrap();
    fs::set_permissions(folder.path(), mode(0o555)).unwrap();
    // The superuser may write everywhere.
    if fs::write(folder.path().join("probe"), "").is_err() {
        let message = refusal(&settings(Some(&file), 1));
        assert!(message.contains("must be writable"), "{message}");
        let other = folder.path().join("other.db");
        assert!(refusal(&settings(Some(&other), 1)).contains("be writable"));
    }
    fs::set_permissions(folder.path(), mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_unavailable() {
    let folder = folder();
    let file = folder.path().join("kv.db");
    let mut writer = writer_without_timeout(&file);
    writer.commit(&(0..1000).map(|key| set(&format!("{key:0200}"), vec![])).collect::<Vec<_>>());
    writer.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("all is in the file");
    drop(writer);
    let mut bytes = fs::read(&file).expect("read");
    bytes[4096..].fill(0x5a);
    fs::write(&file, bytes).expect("written");
    let kv = on_disk(&file);
    let wrong = |answer: Option<KeyvalueError>| match answer {
        Some(KeyvalueError::Unavailable(text)) => assert!(text.contains("it is damaged"), "{text}"),
        other => panic!("{other:?}"),
    };
    wrong(kv.get("b", "k", at(0)).err());
    wrong(kv.set("b", "k", vec![], KEEP, at(0)).await.err());
    wrong(kv.increment("b", "k", step(1), at(0)).await.err());
}

/// A writer that waits for nobody.
fn writer_without_timeout(file: &Path) -> Writer {
    let db = database::open(file, Default::default()).unwrap_or_else(|e| panic!("{e}"));
    db.busy_timeout(Duration::ZERO).expect("set");
    Writer::new(db, &settings(None, 100_000))
}

fn set(key: &str, value: Vec<u8>) -> Write {
    Write {
        bucket: "b".into(),
        key: key.into(),
        change: Change::Set { value, expires: None },
        origin: Origin::Application,
        now: 0,
    }
}

#[test]
fn a_file_that_another_program_holds_can_be_read_and_not_written() {
    let folder = folder();
    let file = folder.path().join("kv.db");
    let mut writer = writer_without_timeout(&file);
    writer.commit_one(&set("k", b"v".to_vec())).expect("written");
    let reader = on_disk(&file);
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = writer.commit_one(&set("k", b"w".to_vec())).unwrap_err();
    assert!(matches!(&error, KeyvalueError::Unavailable(text) if text.contains("locked")), "{error:?}");
    assert_eq!(reader.get("b", "k", at(0)), Ok(Some(b"v".to_vec())));
    other.execute_batch("ROLLBACK").unwrap();
    writer.commit_one(&set("k", b"w".to_vec())).expect("written");
    assert_eq!(reader.get("b", "k", at(0)), Ok(Some(b"w".to_vec())));
}

#[test]
fn on_a_full_disk_a_whole_batch_fails_and_the_store_goes_on() {
    let folder = folder();
    let file = folder.path().join("kv.db");
    let mut writer = writer_without_timeout(&file);
    writer.commit_one(&set("before", b"v".to_vec())).expect("written");
    writer.db.pragma_update(None, "max_page_count", 10).expect("set");
    let answers = writer.commit(&[set("small", vec![]), set("large", vec![0; 100_000])]);
    for answer in answers {
        assert!(
            matches!(&answer, Err(KeyvalueError::Unavailable(text)) if text.contains("disk is full")),
            "{answer:?}"
        );
    }
    assert_eq!(writer.commit_one(&set("after", b"v".to_vec())), Ok(Reply::Done));
    let reader = on_disk(&file);
    let found = ["before", "small", "large", "after"].map(|key| reader.get("b", key, at(0)).expect("read").is_some());
    assert_eq!(found, [true, false, false, true]);
    let size: i64 = writer.db.query_row("SELECT size FROM store", [], |row| row.get(0)).unwrap();
    assert_eq!(size, 2);
}

#[tokio::test]
async fn a_refused_write_does_not_affect_the_others() {
    let mut writer = Writer::new(database::in_memory().expect("opened"), &settings(None, 2));
    let answers = writer.commit(&[set("1", vec![]), set("2", vec![]), set("3", vec![]), set("1", b"v".to_vec())]);
    assert!(
        matches!(answers[..], [Ok(Reply::Done), Ok(Reply::Done), Err(KeyvalueError::Full(_)), Ok(Reply::Done)]),
        "{answers:?}"
    );
    assert_eq!(database::value(&writer.db, "b", "1", 0), Ok(Some(b"v".to_vec())));
}

#[tokio::test]
async fn an_overlay_is_read_before_the_store_and_changes_nothing() {
    let kv = memory(100);
    let once = |token| Step { by: 1, ttl: seconds(60), once: Some(token) };
    kv.set("b", "k", b"v".to_vec(), KEEP, at(0)).await.expect("fits");
    kv.increment("b", "n", once("m1"), at(0)).await.expect("counted");
    let mut overlay = Overlay::default();
    overlay.max_bytes = 100;
    assert_eq!(overlay.increment(&kv, "b", "n", once("m1"), at(1)), Ok(1), "the store has counted it");
    assert_eq!(overlay.increment(&kv, "b", "n", once("m2"), at(1)), Ok(2));
    assert_eq!(overlay.increment(&kv, "b", "n", once("m2"), at(1)), Ok(2));
    assert_eq!(overlay.increment(&kv, "b", "n", once("m1"), at(1)), Ok(2));
    assert_eq!(overlay.get(&kv, "b", "n", at(1)), Ok(Some(b"2".to_vec())));
    overlay.delete(&kv, "b", "n").expect("deleted");
    assert_eq!(overlay.get(&kv, "b", "n", at(1)), Ok(None));
    assert_eq!(overlay.increment(&kv, "b", "n", once("m1"), at(1)), Ok(1), "a new counter");
    overlay.set(&kv, "b", "k", b"w".to_vec()).expect("fits");
    assert_eq!(overlay.get(&kv, "b", "k", at(1)), Ok(Some(b"w".to_vec())));
    assert!(matches!(overlay.increment(&kv, "b", "k", step(1), at(1)), Err(KeyvalueError::Unavailable(_))));
    assert!(matches!(overlay.set(&kv, "b", "k", vec![0; 9]), Err(KeyvalueError::Quota(_))));
    assert!(matches!(overlay.set(&kv, "b", &"k".repeat(100), vec![]), Err(KeyvalueError::Quota(_))));
    assert_eq!(kv.get("b", "k", at(1)), Ok(Some(b"v".to_vec())));
    assert_eq!(kv.get("b", "n", at(1)), Ok(Some(b"1".to_vec())));
}

#[tokio::test]
async fn a_list_has_the_entries_of_one_bucket_in_order() {
    let folder = folder();
    for kv in both(20, folder.path()) {
        for (bucket, key, ttl) in
            [("b", "c", KEEP), ("b", "a", KEEP), ("b", "gone", seconds(5)), ("a", "x", KEEP), ("c", "x", KEEP)]
        {
            kv.set(bucket, key, key.as_bytes().to_vec(), ttl, at(100)).await.expect("fits");
        }
        let keys = |after: &str, limit: usize| {
            let listed = kv.list("b", after, limit, at(105)).expect("read");
            assert!(listed.iter().all(|(key, value)| key.as_bytes() == value));
            listed.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys("", 10), ["a", "c"]);
        assert_eq!((keys("a", 10), keys("", 1), keys("c", 10)), (vec!["c".to_owned()], vec!["a".to_owned()], vec![]));
        assert_eq!(kv.list("b", "", 10, at(104)).expect("read").len(), 3);
        assert!(matches!(kv.list("no bucket", "", 1, at(0)), Err(KeyvalueError::Quota(_))));
    }
}
