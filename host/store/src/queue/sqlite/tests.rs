//! Tests of the SQLite engine: damage, upgrades, files. The tests for every engine are in [`crate::conformance`].
//!
//! - [`damage`]: damaged files
//! - [`earlier`]: a database of an earlier build; [`earlier_tables`]: upgrades of tables; [`upgrade`]: upgrades of damaged files
//! - [`files`]: the lock, changes from outside, crashes, permissions

mod damage;
mod earlier;
mod earlier_tables;
mod files;
mod log;
mod upgrade;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::conformance::{accept, at, claim, done, new, new_batch, numbers, settle};
use crate::queue::{Queue, Store, digest};

const TRANSACTIONAL: Priority = Priority::TRANSACTIONAL;
const ORDINARY: Priority = Priority::ORDINARY;

/// The engine of a queue.
fn sqlite(queue: &Queue) -> &Sqlite {
    let Store::Sqlite(sqlite) = &queue.store;
    sqlite
}

/// A temporary folder for a queue.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().expect("a folder"))
    }

    fn settings(&self) -> Settings {
        Settings { database: self.0.path().join("ace.db"), disk_reserve: 0, ..Default::default() }
    }

    fn open(&self) -> Queue {
        Queue::open(&self.settings(), at(1_000)).unwrap_or_else(|e| panic!("{e}"))
    }
}

async fn state(queue: &Queue, number: u128) -> State {
    queue.message(Uuid::from_u128(number)).await.expect("asked").expect("it is there").state
}

#[tokio::test]
async fn a_queue_is_opened_by_one_process() {
    let home = Home::new();
    let _queue = home.open();
    let refused = Queue::open(&home.settings(), at(0)).err().expect("taken").to_string();
    assert!(refused.contains("another ace (process ") && refused.contains("queue.database"), "{refused}");
    assert!(refused.contains(&std::process::id().to_string()), "{refused}");
}

#[tokio::test]
async fn old_messages_are_deleted_and_their_space_is_returned() {
    let home = Home::new();
    let settings = Settings { max_settled: 100, ..home.settings() };
    let queue = Queue::open(&settings, at(0)).expect("opened");
    for round in 0..10 {
        let news = (0..50).map(|n| New { body: vec![b'x'; 20_000], ..new(round * 50 + n + 1, ORDINARY) }).collect();
        queue.accept(news, at(1_000)).await.expect("accepted");
    }
    let claimed = claim(&queue, 500, 1_000).await;
    settle(&queue, &claimed[..499], done(State::Failed)).await;
    let before = queue.stats().await.expect("asked").bytes;
    queue.maintain(at(1_002)).await.expect("maintained");
    let kept = queue.messages(Filter { is_dead: true, ..Filter::default() }, None, 1_000).await.expect("asked");
    assert_eq!(kept.messages.len(), 100, "the number");
    let day = 86_400;
    queue.maintain(at(8 * day)).await.expect("maintained");
    let dead = queue.message(kept.messages[0].uuid).await.expect("asked").expect("kept");
    assert_eq!((dead.state, dead.body), (State::Failed, None), "the body is erased first");
    queue.maintain(at(31 * day)).await.expect("maintained");
    queue.maintain(at(31 * day)).await.expect("maintained");
    let all = queue.messages(Filter::default(), None, 10).await.expect("asked");
    assert_eq!(all.messages.len(), 1, "unsettled messages are not deleted");
    let file = std::fs::metadata(home.0.path().join("ace.db")).expect("there").len();
    assert!(file < before / 4, "{file} of {before}");
}

#[tokio::test]
async fn a_damaged_row_is_claimed_and_set_aside() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1, 2], ORDINARY).await;
    sqlite(&queue)
        .writer
        .write(|writer| Ok(writer.db.execute("UPDATE messages SET body = NULL WHERE id = 1", [])?))
        .await
        .expect("damaged");
    let claimed = claim(&queue, 2, 1_000).await;
    assert_eq!((claimed.len(), claimed[0].body.len()), (2, 0));
    settle(&queue, &claimed[..1], Settlement::Corrupt { report: b"{}".to_vec() }).await;
    settle(&queue, &claimed[1..], done(State::Sent)).await;
    assert_eq!((state(&queue, 1).await, state(&queue, 2).await), (State::Corrupt, State::Sent));
}

/// Whether any file of the queue contains a text.
fn is_on_disk(home: &Home, text: &str) -> bool {
    let files = std::fs::read_dir(home.0.path()).expect("a folder");
    let mut files = files.map(|file| std::fs::read(file.expect("an entry").path()).expect("read"));
    files.any(|bytes| memchr::memmem::find(&bytes, text.as_bytes()).is_some())
}

#[tokio::test]
async fn erased_data_is_not_on_the_disk() {
    let home = Home::new();
    let queue = home.open();
    let secret = |n| New { body: format!("reset-link-{n}-{}", "x".repeat(9_000)).into_bytes(), ..new(n, ORDINARY) };
    queue.accept((1..=7).map(secret).collect(), at(1_000)).await.expect("accepted");
    assert!(is_on_disk(&home, "reset-link-1-") && is_on_disk(&home, "user3@"));
    let claimed = claim(&queue, 5, 1_000).await;
    settle(&queue, &claimed, done(State::Sent)).await;
    queue.erase(Some("3".to_owned()), None).await.expect("erased");
    for number in 1..=5 {
        assert!(!is_on_disk(&home, &format!("reset-link-{number}-")), "{number}, which was sent");
    }
    assert!(!is_on_disk(&home, "user3@"), "an erased person");
    assert!(is_on_disk(&home, "reset-link-6-"), "a waiting message");
}

#[tokio::test]
async fn a_locked_file_is_an_error_until_it_is_unlocked() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    let other = Connection::open(home.0.path().join("ace.db")).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let refused = queue.accept(vec![new(2, ORDINARY)], at(1_000)).await;
    let Err(QueueError::Unavailable(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("lock"), "{reason}");
    assert_eq!(queue.stats().await.expect("it can be read").waiting_ordinary, 1);
    other.execute_batch("ROLLBACK").expect("let go");
    accept(&queue, [2], ORDINARY).await;
    assert_eq!(numbers(&claim(&queue, 9, 1_000).await), [1, 2]);
}

#[tokio::test]
async fn a_backup_can_be_opened() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, 1..=20, ORDINARY).await;
    let claimed = claim(&queue, 5, 1_000).await;
    // As `sqlite3 ace.db ".backup COPY"` does while the queue is in use.
    let copy = tempfile::tempdir().expect("a folder");
    let from = Connection::open(home.0.path().join("ace.db")).expect("opened");
    let to = copy.path().join("ace.db");
    from.execute("VACUUM INTO ?1", [to.to_string_lossy()]).expect("copied");
    settle(&queue, &claimed, done(State::Sent)).await;
    let settings = Settings { database: to, ..home.settings() };
    let copied = Queue::open(&settings, at(2_000)).expect("opened");
    let mut all = numbers(&claim(&copied, 100, 2_000).await);
    all.sort_unstable();
    assert_eq!(all, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn tables_with_a_unique_index_on_uuids_are_upgraded() {
    let home = Home::new();
    let insert = "INSERT INTO messages (id, uuid, digest, lane, state, in_doubt, accepted, name, user, body)
        VALUES (?1, ?2, ?3, 1, 0, 0, 0, 'app.note', ?4, ?5)";
    {
        let db = file::open_as(&home.settings().database, &file::VERSIONS[..2]).unwrap_or_else(|e| panic!("{e}"));
        for number in 1..=3 {
            let new = new(number, ORDINARY);
            let user = new.user.as_deref();
            let values = rusqlite::params![number as i64, new.uuid.as_bytes(), new.digest, user, new.body];
            db.execute(insert, values).expect("a message of before");
            db.execute("INSERT INTO queue (lane, due, id) VALUES (1, 0, ?1)", [number as i64]).expect("it waits");
            let [hash, _] = super::recipients::legacy_hashes(user, None);
            db.execute("INSERT INTO recipients VALUES (?1, ?2)", [hash, Some(number as i64)]).expect("its recipient");
        }
    }
    let queue = home.open();
    let again = queue.accept(vec![new(2, ORDINARY), new(4, ORDINARY)], at(1_000)).await.expect("accepted");
    assert_eq!(again, [Accepted::Same(State::Queued), Accepted::New(MessageId(4))]);
    let filter = Filter { user: Some("2".to_owned()), ..Filter::default() };
    let found = queue.messages(filter, None, 10).await.expect("a page").messages;
    assert_eq!(found.iter().map(|m| m.uuid.as_u128()).collect::<Vec<_>>(), [2]);
    assert_eq!(numbers(&claim(&queue, 9, 1_000).await), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_database_of_another_program_or_a_later_ace_is_rejected() {
    let home = Home::new();
    let refused = |sql: &str| {
        let file = home.0.path().join("ace.db");
        let _ = std::fs::remove_file(&file);
        Connection::open(&file).and_then(|db| db.execute_batch(sql)).expect("made");
        Queue::open(&home.settings(), at(0)).err().expect("refused").to_string()
    };
    assert!(refused("CREATE TABLE theirs (a)").contains("the database of another program"));
    assert!(refused("PRAGMA application_id = 1094927729; PRAGMA user_version = 99").contains("a later ACE wrote it"));
    std::fs::write(home.0.path().join("ace.db"), "x".repeat(10_000)).expect("written");
    let text = Queue::open(&home.settings(), at(0)).err().expect("refused").to_string();
    assert!(text.contains("it is not a SQLite database"), "{text}");
}

/// A small file system, if this process may mount one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<SmallDisk> {
        let size = format!("size={size}");
        let args = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let mounted = std::process::Command::new("mount").args(args).arg(at).output().ok()?;
        mounted.status.success().then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_accepted_messages_are_kept() {
    let home = Home::new();
    let Some(disk) = SmallDisk::mount(home.0.path(), "900k") else {
        assert_ne!(unsafe { libc::geteuid() }, 0, "root can mount a small disk");
        return;
    };
    let queue = home.open();
    let (mut accepted, mut refused) = (Vec::new(), None);
    for number in 1..500 {
        let one = New { body: vec![b'x'; 4_000], ..new(number, ORDINARY) };
        match queue.accept(vec![one], at(1_000)).await {
            Ok(_) => accepted.push(number),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let Some(QueueError::NoRoom(reason)) = refused else { panic!("{refused:?} after {}", accepted.len()) };
    assert!(reason.contains("the disk is full"), "{reason}");
    drop(queue);
    let _ = std::process::Command::new("mount").args(["-o", "remount,size=8m"]).arg(&disk.0).output();
    let queue = home.open();
    let mut found = Vec::new();
    loop {
        let claimed = claim(&queue, 100, 1_000).await;
        if claimed.is_empty() {
            break;
        }
        found.extend(numbers(&claimed));
        settle(&queue, &claimed, done(State::Sent)).await;
    }
    assert_eq!(found, accepted);
    drop(queue);
    drop(disk);
}
