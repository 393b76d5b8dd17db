//! The database as a file: its lock, changes while it is open, crashes, and permissions.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::files::Access;
use crate::sqlite::beside;

impl Home {
    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("a folder");
        entries.map(|entry| entry.expect("one").file_name().into_string().expect("a name")).collect()
    }

    fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.file(name)).expect(name).permissions().mode() & 0o777
    }

    fn open_at(&self, name: &str) -> Result<Queue, OpenError> {
        Queue::open(&Settings { database: self.file(name), ..self.settings() }, at(1_000))
    }

    /// A copy of the home, as if the process were killed now.
    fn killed(&self) -> Home {
        let home = Home::new();
        for name in ["ace.db", "ace.db-wal"] {
            std::fs::copy(self.file(name), home.file(name)).expect("copied");
        }
        home
    }
}

/// Creates tables of version 1 with a waiting message.
fn of_version_1(home: &Home) {
    let db = file::open_as(&home.file("ace.db"), &file::VERSIONS[..1]).unwrap_or_else(|e| panic!("{e}"));
    let one = new(1, ORDINARY);
    db.execute(
        "INSERT INTO messages (id, uuid, digest, lane, state, in_doubt, accepted, name, body) VALUES (1, ?1, ?2, 1, 0, 0, 0, ?3, ?4)",
        rusqlite::params![one.uuid.as_bytes(), one.digest, one.name, one.body],
    )
    .expect("a message of before");
    db.execute("INSERT INTO queue (lane, due, id) VALUES (1, 0, 1)", []).expect("it waits");
}

#[tokio::test]
async fn a_file_is_locked_by_every_name() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    symlink(home.file("ace.db"), home.file("link.db")).expect("linked");
    symlink(home.0.path(), home.file("folder")).expect("linked");
    std::fs::hard_link(home.file("ace.db"), home.file("hard.db")).expect("linked");
    std::fs::remove_file(home.file("ace.db.lock")).expect("removed");
    for name in ["ace.db", "link.db", "folder/ace.db", "hard.db"] {
        let refused = home.open_at(name).err().expect(name).to_string();
        let by = format!("another ace (process {}) has it open", std::process::id());
        assert!(refused.contains(&by), "{refused}");
    }
    accept(&queue, [2], ORDINARY).await;
    assert_eq!(numbers(&claim(&queue, 9, 1_000).await), [1, 2], "the first queue still works");
}

#[test]
fn a_file_locked_by_an_earlier_version_is_in_use() {
    let home = Home::new();
    drop(home.open());
    let theirs = std::fs::File::open(home.file("ace.db.lock")).expect("there");
    theirs.lock().expect("locked");
    symlink(home.file("ace.db"), home.file("link.db")).expect("linked");
    for name in ["ace.db", "link.db"] {
        assert!(matches!(home.open_at(name), Err(OpenError::InUse { .. })), "{name}");
    }
}

#[tokio::test]
async fn a_log_under_another_name_is_an_error() {
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    let killed = home.killed();
    std::fs::hard_link(killed.file("ace.db"), killed.file("other.db")).expect("linked");
    let refused = killed.open_at("other.db").err().expect("its log is elsewhere").to_string();
    assert!(refused.contains("it is also called") && refused.contains("ace.db-wal"), "{refused}");
    let queue = killed.open_at("ace.db").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(numbers(&claim(&queue, 9, 1_000).await), [1]);
}

#[tokio::test]
async fn a_moved_or_replaced_file_is_not_written() {
    let reason = async |queue: &Queue| match queue.accept(vec![new(9, ORDINARY)], at(1_000)).await {
        Err(QueueError::Unavailable(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let home = Home::new();
    let queue = home.open();
    accept(&queue, [1], ORDINARY).await;
    std::fs::rename(home.file("ace.db"), home.file("moved.db")).expect("moved");
    let moved = reason(&queue).await;
    assert!(moved.contains("deleted or moved away") && moved.contains("move it back"), "{moved}");
    assert!(queue.claim(Claim { max: 9, bulk_max: 9 }, at(1_000)).await.is_err(), "nor is anything sent");
    std::fs::rename(home.file("moved.db"), home.file("ace.db")).expect("moved back");
    accept(&queue, [2], ORDINARY).await;

    let other = Home::new();
    drop(other.open());
    std::fs::copy(home.file("ace.db"), home.file("kept.db")).expect("copied");
    std::fs::copy(other.file("ace.db"), home.file("other.db")).expect("copied");
    std::fs::rename(home.file("other.db"), home.file("ace.db")).expect("replaced");
    let replaced = reason(&queue).await;
    assert!(replaced.contains("another file was put in its place"), "{replaced}");
}

#[tokio::test]
async fn a_damaged_log_is_copied_and_a_torn_one_is_not() {
    let home = Home::new();
    let queue = home.open();
    for number in 1..=6 {
        accept(&queue, [number], ORDINARY).await;
    }
    let log = std::fs::read(home.file("ace.db-wal")).expect("there");
    let spoilt = |spoil: &dyn Fn(&mut Vec<u8>)| {
        let (killed, mut log) = (home.killed(), log.clone());
        spoil(&mut log);
        std::fs::write(killed.file("ace.db-wal"), &log).expect("written");
        (killed, log)
    };
    let is_copy = |name: &String| name.starts_with("ace.db-wal.damaged-");

    for torn in [1, 5_000, 40_000] {
        let (killed, _) = spoilt(&|log| log.truncate(log.len() - torn));
        drop(killed.open());
        assert!(!killed.names().iter().any(is_copy), "a torn tail of {torn} is what kill -9 leaves");
    }
    let middle = log.len() / 2;
    let (killed, damaged) = spoilt(&|log| log[middle] ^= 0xff);
    let queue = killed.open();
    let copies: Vec<String> = killed.names().into_iter().filter(is_copy).collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(std::fs::read(killed.file(&copies[0])).expect("read"), damaged);
    assert_eq!(killed.mode(&copies[0]), 0o600);
    let left = claim(&queue, 99, 1_000).await.len();
    assert!(left < 6, "{left} of 6 are before the damage, and the queue goes on");
}

#[tokio::test]
async fn an_incomplete_backup_is_replaced_and_a_complete_one_is_kept() {
    let home = Home::new();
    of_version_1(&home);
    let copy = home.file("ace.db.version-1");
    // Incomplete backups that an earlier version left when it was killed.
    for (left, is_whole) in [(&b""[..], false), (&b"SQLite format 3\0"[..], false)] {
        let home = {
            let killed = Home::new();
            std::fs::copy(home.file("ace.db"), killed.file("ace.db")).expect("copied");
            killed
        };
        std::fs::write(home.file("ace.db.version-1"), left).expect("written");
        std::fs::write(home.file("ace.db.version-1.tmp"), "half a copy").expect("written");
        drop(home.open());
        let copied = std::fs::metadata(home.file("ace.db.version-1")).expect("there").len();
        assert!(!is_whole && copied > 4_096, "it was replaced");
        assert!(!home.names().iter().any(|name| name.ends_with(".tmp")), "{:?}", home.names());
        assert_eq!(home.mode("ace.db.version-1"), 0o600);
        let first = Queue::open(&Settings { database: home.file("ace.db.version-1"), ..home.settings() }, at(1_000));
        assert_eq!(numbers(&claim(&first.unwrap_or_else(|e| panic!("{e}")), 9, 1_000).await), [1]);
    }
    drop(home.open());
    let before = std::fs::read(&copy).expect("there");
    std::fs::remove_file(home.file("ace.db")).expect("removed");
    of_version_1(&home);
    drop(home.open());
    assert_eq!(std::fs::read(&copy).expect("there"), before, "a complete one is kept, because it is older");
}

#[tokio::test]
async fn other_users_cannot_read_the_database_and_its_companions() {
    let home = Home::new();
    of_version_1(&home);
    for name in ["ace.db", "ace.db.version-1"] {
        let _ = std::fs::File::create_new(home.file(name));
        std::fs::set_permissions(home.file(name), Permissions::from_mode(0o644)).expect("changed");
    }
    let queue = home.open();
    accept(&queue, [2], ORDINARY).await;
    for name in ["ace.db", "ace.db-wal", "ace.db-shm", "ace.db.lock", "ace.db.version-1"] {
        assert_eq!(home.mode(name), 0o600, "{name}");
    }
    drop(queue);
    let group = unsafe { libc::getegid() };
    let settings = Settings { access: Access { group: Some(group) }, ..home.settings() };
    let queue = Queue::open(&settings, at(1_000)).unwrap_or_else(|e| panic!("{e}"));
    accept(&queue, [3], ORDINARY).await;
    for name in ["ace.db", "ace.db-wal", "ace.db-shm", "ace.db.version-1"] {
        assert_eq!(home.mode(name), 0o640, "{name}");
    }
    assert!(beside(&home.file("ace.db"), "-wal").exists());
}

/// Fills a disk.
fn fill(folder: &Path) -> PathBuf {
    use std::io::Write;
    let ballast = folder.join("ballast");
    let mut file = std::fs::File::create(&ballast).expect("created");
    for size in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    ballast
}

async fn refused(queue: &Queue) -> String {
    match queue.accept(vec![new(9_999, ORDINARY)], at(1_000)).await {
        Err(QueueError::NoRoom(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn on_a_full_disk_accepted_messages_are_sent_and_new_ones_rejected() {
    let home = Home::new();
    let Some(_disk) = SmallDisk::mount(home.0.path(), "16m") else {
        assert_ne!(unsafe { libc::geteuid() }, 0, "root can mount a small disk");
        return;
    };
    let settings = Settings { disk_reserve: 96 << 20, ..home.settings() };
    let open = || Queue::open(&settings, at(1_000)).unwrap_or_else(|e| panic!("{e}"));
    let queue = open();
    accept(&queue, 1..=20, ORDINARY).await;
    assert_eq!(home.file("ace.db.reserve").metadata().expect("it is kept").len(), 2 << 20, "an eighth of the disk");
    drop(queue);
    // Wait for its thread to end, because that frees space.
    while home.file("ace.db-wal").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ballast = fill(home.0.path());

    let queue = open();
    let reason = refused(&queue).await;
    assert!(reason.contains("the disk is full") && reason.contains("Free 3 MiB"), "{reason}");
    assert!(queue.health().writes.is_some(), "the queue is not healthy");
    let claimed = claim(&queue, 10, 1_000).await;
    for one in &claimed {
        settle(&queue, std::slice::from_ref(one), done(State::Sent)).await;
    }
    drop(queue);
    let queue = open();
    refused(&queue).await;
    let rest = claim(&queue, 99, 1_000).await;
    settle(&queue, &rest, done(State::Sent)).await;
    let mut sent = [numbers(&claimed), numbers(&rest)].concat();
    sent.sort_unstable();
    assert_eq!(sent, (1..=20).collect::<Vec<_>>(), "each once, over a restart");

    std::fs::remove_file(ballast).expect("removed");
    for _ in 0..100 {
        if queue.accept(vec![new(21, ORDINARY)], at(1_000)).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(numbers(&claim(&queue, 9, 1_000).await), [21], "it is accepted when there is space again");
    assert_eq!(queue.health().writes, None);
    drop(queue);
}

#[tokio::test]
async fn a_queue_that_fills_the_disk_itself_can_be_emptied() {
    let home = Home::new();
    let Some(_disk) = SmallDisk::mount(home.0.path(), "8m") else {
        assert_ne!(unsafe { libc::geteuid() }, 0, "root can mount a small disk");
        return;
    };
    let settings = Settings { disk_reserve: 96 << 20, ..home.settings() };
    let queue = Queue::open(&settings, at(1_000)).unwrap_or_else(|e| panic!("{e}"));
    let mut accepted = Vec::new();
    for number in (1..100_000).step_by(20) {
        let numbers = number..number + 20;
        let some = numbers.clone().map(|n| New { body: vec![b'x'; 4_000], ..new(n, ORDINARY) }).collect();
        match queue.accept(some, at(1_000)).await {
            Ok(_) => accepted.extend(numbers),
            Err(QueueError::NoRoom(_)) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(accepted.len() > 200, "{}", accepted.len());
    refused(&queue).await;
    let mut sent = Vec::new();
    loop {
        let claimed = claim(&queue, 40, 1_000).await;
        if claimed.is_empty() {
            break;
        }
        sent.extend(numbers(&claimed));
        settle(&queue, &claimed, done(State::Sent)).await;
    }
    sent.sort_unstable();
    assert_eq!(sent, accepted);
    drop(queue);
}
