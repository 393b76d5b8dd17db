//! Whether an open database is still the file at its path.
//!
//! SQLite keeps writing to a file that was deleted or moved away; those changes are lost when the process ends. It also relies on its
//! cache if something else overwrites the file. So the metadata of the database and of its write-ahead log is checked before each
//! transaction and compared with that after the previous one.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::lock::FileLock;
use super::{beside, wal};
use crate::files::FileStamp;

/// Bytes of a database's header.
const HEADER_BYTES: usize = 100;

/// Why nothing may be written any more: until the file is moved back, or until a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost(String);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The state of an open database after the last transaction.
pub(super) struct Identity {
    lock: FileLock,
    database: Watched,
    log: Watched,
    /// The header after the last change of the file.
    header: Header,
    /// SQLite's count of commits by other connections.
    commits: i64,
    /// The last check failed, so the current state must not be recorded.
    is_lost: bool,
}

struct Watched {
    path: PathBuf,
    stamp: FileStamp,
}

/// How a file changed.
enum Change {
    /// It is the same file with different metadata.
    Content(FileStamp),
    Lost(Lost),
}

impl Watched {
    fn new(path: PathBuf) -> std::io::Result<Watched> {
        let stamp = FileStamp::try_of(&path)?;
        Ok(Watched { path, stamp })
    }

    fn check(&self) -> Result<(), Change> {
        match FileStamp::try_of(&self.path) {
            Ok(stamp) if stamp == self.stamp => Ok(()),
            Ok(stamp) if stamp.id() == self.stamp.id() => Err(Change::Content(stamp)),
            Ok(_) => Err(Change::Lost(self.lost(
                "another file was put in its place while it was open",
                "stop the server, move the right file back, and start it",
            ))),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(Change::Lost(self.lost(
                "it was deleted or moved away while it was open",
                "move it back, and writing resumes automatically; if it is lost, restore a backup and restart the server",
            ))),
            Err(e) => Err(Change::Lost(self.lost(
                &format!("it cannot be read: {e}"),
                "make its folder accessible again, and writing resumes automatically",
            ))),
        }
    }

    /// Records the current metadata. Returns whether it changed. If the file was replaced, the next check finds that.
    fn renew(&mut self) -> bool {
        match FileStamp::try_of(&self.path) {
            Ok(stamp) if stamp.id() == self.stamp.id() && stamp != self.stamp => {
                self.stamp = stamp;
                true
            }
            _ => false,
        }
    }

    fn lost(&self, what: &str, hint: &str) -> Lost {
        Lost(format!("{}: {what}; nothing is written any more. To fix it, {hint}", self.path.display()))
    }

    fn overwritten(&self) -> Lost {
        let hint = "stop the server, restore a backup of the database (without its -wal and -shm), and start it";
        self.lost("something else overwrote or truncated it while it was open", hint)
    }
}

impl Identity {
    /// Records the state of a database that `db` has just opened.
    ///
    /// # Errors
    /// The file is not the one that `lock` holds, or it cannot be read.
    pub(super) fn new(lock: FileLock, db: &Connection, path: &Path) -> Result<Identity, String> {
        // Absolute, because the working directory may change; with links unresolved, so that a change of a link is noticed.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let unreadable = |e: std::io::Error| format!("it cannot be read: {e}");
        let real = path.canonicalize().map_err(unreadable)?;
        let database = Watched::new(path).map_err(unreadable)?;
        if database.stamp.id() != lock.id() {
            return Err("another file was put in its place while it was being opened".to_owned());
        }
        // SQLite creates the log on the first read.
        let first: rusqlite::Result<i64> = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0));
        first.map_err(|e| super::describe(&e))?;
        let log = Watched::new(beside(&real, "-wal")).map_err(|e| format!("its write-ahead log: {e}"))?;
        let header = Header(lock.head().map_err(unreadable)?);
        let commits = commits(db).map_err(|e| super::describe(&e))?;
        Ok(Identity { lock, database, log, header, commits, is_lost: false })
    }

    /// Must be called before each transaction. Costs two system calls, unless something changed.
    ///
    /// # Errors
    /// The database is no longer the file at its path, or something other than SQLite wrote to it: nothing may be written.
    pub(super) fn check(&mut self, db: &Connection) -> Result<(), Lost> {
        let checked = self.check_files(db);
        self.is_lost = checked.is_err();
        checked
    }

    fn check_files(&mut self, db: &Connection) -> Result<(), Lost> {
        let database = match self.database.check() {
            Err(Change::Lost(lost)) => return Err(lost),
            Err(Change::Content(stamp)) => Some(stamp),
            Ok(()) => None,
        };
        let log = match self.log.check() {
            Err(Change::Lost(lost)) => return Err(lost),
            Err(Change::Content(stamp)) => Some(stamp),
            Ok(()) => None,
        };
        if database.is_none() && log.is_none() {
            return Ok(());
        }
        // Another process may use the database through SQLite; if it committed, changes are expected.
        let commits = commits(db).map_err(|e| self.database.lost(&super::describe(&e), "restart the server"))?;
        if commits == self.commits {
            let frames = LogFrames::of(db).unwrap_or_default();
            if database.is_some_and(|stamp| !self.is_explained(stamp, frames)) {
                return Err(self.database.overwritten());
            }
            if log.is_some() && !self.is_log_whole(frames) {
                return Err(self.log.overwritten());
            }
        }
        self.commits = commits;
        self.is_lost = false;
        self.renew();
        Ok(())
    }

    /// Must be called after each transaction and each checkpoint: records the state of the files.
    pub(super) fn renew(&mut self) {
        if self.is_lost {
            return;
        }
        self.log.renew();
        if self.database.renew()
            && let Ok(header) = self.lock.head()
        {
            self.header = Header(header);
        }
    }

    /// Whether the database file may have changed without a commit by another process: only its metadata changed, or another process
    /// ran a checkpoint.
    fn is_explained(&self, now: FileStamp, frames: LogFrames) -> bool {
        let Ok(header) = self.lock.head().map(Header) else { return false };
        if header == self.header {
            return now.bytes() == self.database.stamp.bytes();
        }
        let is_checkpointed = self.log.stamp.bytes() > 0 && (frames.in_database > 0 || frames.in_log == 0);
        is_checkpointed && header.follows(&self.header) && now.bytes() >= header.database_bytes()
    }

    /// Whether the log still contains all frames that SQLite expects in it.
    fn is_log_whole(&self, frames: LogFrames) -> bool {
        let page_bytes = self.header.page_bytes() as usize;
        frames.in_log == 0 || wal::scan(&self.log.path, page_bytes).is_ok_and(|scan| scan.valid >= frames.in_log)
    }
}

/// How many commits of other connections SQLite has noticed.
fn commits(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// The number of frames in the log, according to SQLite.
#[derive(Debug, Clone, Copy, Default)]
struct LogFrames {
    in_log: u64,
    /// How many of these a checkpoint copied into the database.
    in_database: u64,
}

impl LogFrames {
    fn of(db: &Connection) -> rusqlite::Result<LogFrames> {
        db.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| {
            let number = |at| row.get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or_default());
            Ok(LogFrames { in_log: number(1)?, in_database: number(2)? })
        })
    }
}

/// The header of a database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header([u8; HEADER_BYTES]);

impl Header {
    fn number(&self, at: usize) -> u32 {
        let bytes = &self.0[at..at + 4];
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn page_bytes(&self) -> u64 {
        match u16::from_be_bytes([self.0[16], self.0[17]]) {
            1 => 65_536,
            bytes => u64::from(bytes),
        }
    }

    /// The minimum size of the database file.
    fn database_bytes(&self) -> u64 {
        u64::from(self.number(28)) * self.page_bytes()
    }

    /// Whether it can be a later header of the same database: the same kind, and a larger change counter.
    fn follows(&self, before: &Header) -> bool {
        let fixed = |header: &Header| (<[u8; 18]>::try_from(&header.0[..18]).ok(), header.number(68));
        let forward = self.number(24).wrapping_sub(before.number(24));
        fixed(self) == fixed(before) && forward < u32::MAX / 2
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sqlite::{Database, LockMode, prepare};

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Home {
            Home(tempfile::tempdir().expect("a folder"))
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// A watched database with data in the file and in its log.
        fn open(&self, mode: LockMode) -> Database {
            let file = self.path("a.db");
            let lock = prepare(&file, mode, Default::default(), &[]).expect("held");
            let mut db = Database::new(Connection::open(&file).expect("opened"), &file, lock);
            db.pragma_update(None, "journal_mode", "WAL").expect("set");
            db.execute_batch("CREATE TABLE IF NOT EXISTS t (a)").expect("made");
            db.watch(Default::default()).expect("it is there");
            write(&mut db, 1).expect("it is whole");
            db
        }
    }

    /// One transaction, as a writer runs it.
    fn write(db: &mut Database, rows: usize) -> Result<(), Lost> {
        db.check()?;
        db.execute_batch("BEGIN IMMEDIATE").expect("started");
        for _ in 0..rows {
            db.execute("INSERT INTO t VALUES (randomblob(3000))", []).expect("written");
        }
        db.execute_batch("COMMIT").expect("written");
        db.renew();
        Ok(())
    }

    fn checkpoint(db: &Connection, mode: &str) {
        db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())).expect("checkpointed");
    }

    /// Waits for longer than the granularity of file times.
    fn later() {
        std::thread::sleep(Duration::from_millis(20));
    }

    #[test]
    fn changes_by_sqlite_are_expected() {
        let home = Home::new();
        let mut db = home.open(LockMode::Exclusive);
        db.pragma_update(None, "wal_autocheckpoint", 10).expect("set");
        let reader = Connection::open(home.path("a.db")).expect("opened");
        for round in 0..40 {
            write(&mut db, 1 + round % 7).expect("its own commits and checkpoints");
            if round % 5 == 0 {
                let rows: i64 = reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("read");
                assert!(rows > 0);
            }
        }
        checkpoint(&db, "TRUNCATE");
        db.renew();
        write(&mut db, 1).expect("and a checkpoint of its own between two transactions");
    }

    #[test]
    fn another_process_may_commit_and_checkpoint() {
        let home = Home::new();
        let mut db = home.open(LockMode::Shared);
        let other = Connection::open(home.path("a.db")).expect("opened");
        later();
        other.execute("INSERT INTO t VALUES (randomblob(50000))", []).expect("written");
        write(&mut db, 1).expect("a commit");
        for mode in ["PASSIVE", "TRUNCATE"] {
            later();
            checkpoint(&other, mode);
            write(&mut db, 5).expect(mode);
        }
        later();
        other.execute_batch("DELETE FROM t; VACUUM").expect("written");
        checkpoint(&other, "TRUNCATE");
        write(&mut db, 1).expect("a file that got shorter");
        other.execute_batch("BEGIN; INSERT INTO t VALUES (1); ROLLBACK").expect("undone");
        write(&mut db, 1).expect("nothing");
    }

    #[test]
    fn a_file_that_was_only_touched_is_the_same() {
        let home = Home::new();
        let mut db = home.open(LockMode::Exclusive);
        for name in ["a.db", "a.db-wal"] {
            // SQLite's locks end where another descriptor of the database is closed: one of a log ends nothing.
            let file = std::fs::File::options().append(true).open(home.path(name)).expect("there");
            file.set_modified(std::time::UNIX_EPOCH).expect("touched");
            write(&mut db, 1).expect(name);
        }
    }

    #[test]
    fn a_missing_file_stops_writing_until_it_is_back() {
        let home = Home::new();
        let mut db = home.open(LockMode::Exclusive);
        for name in ["a.db", "a.db-wal"] {
            std::fs::rename(home.path(name), home.path("moved")).expect("moved");
            let lost = write(&mut db, 1).expect_err("it is gone").to_string();
            assert!(lost.contains("deleted or moved away") && lost.contains(name), "{lost}");
            std::fs::rename(home.path("moved"), home.path(name)).expect("moved back");
            write(&mut db, 1).expect("it is back");
        }
        std::fs::remove_file(home.path("a.db")).expect("deleted");
        assert!(write(&mut db, 1).is_err());
    }

    #[test]
    fn a_replaced_file_stops_writing() {
        let home = Home::new();
        let mut db = home.open(LockMode::Exclusive);
        std::fs::copy(home.path("a.db"), home.path("b.db")).expect("copied");
        std::fs::rename(home.path("b.db"), home.path("a.db")).expect("replaced");
        let lost = write(&mut db, 1).expect_err("it is another file").to_string();
        assert!(lost.contains("another file was put in its place"), "{lost}");
        // When the last connection is closed, SQLite must not delete the log of the new file.
        std::fs::remove_file(home.path("a.db-wal")).expect("removed");
        std::fs::write(home.path("a.db-wal"), "the new file's").expect("written");
        drop(db);
        assert!(home.path("a.db-wal").exists());
    }

    #[test]
    fn a_changed_link_stops_writing() {
        let home = Home::new();
        drop(home.open(LockMode::Exclusive));
        for name in ["b.db", "c.db"] {
            std::fs::copy(home.path("a.db"), home.path(name)).expect("copied");
        }
        std::fs::remove_file(home.path("a.db")).expect("removed");
        std::os::unix::fs::symlink(home.path("b.db"), home.path("a.db")).expect("linked");
        let mut db = home.open(LockMode::Exclusive);
        std::fs::remove_file(home.path("a.db")).expect("removed");
        std::os::unix::fs::symlink(home.path("c.db"), home.path("a.db")).expect("linked");
        assert!(write(&mut db, 1).is_err());
    }

    #[test]
    fn an_overwritten_or_truncated_file_stops_writing() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = folder.path().join("other.db");
        let made = Connection::open(&other).expect("opened");
        made.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (randomblob(300000))").expect("made");
        drop(made);
        let other = std::fs::read(other).expect("read");
        let cut = |file: &Path, len: u64| {
            std::fs::File::options().write(true).open(file).and_then(|file| file.set_len(len)).expect("cut");
        };
        type Way<'a> = (&'static str, &'a dyn Fn(&Home));
        let ways: [Way; 6] = [
            ("another database, longer", &|home| std::fs::write(home.path("a.db"), &other).expect("written")),
            ("emptied", &|home| cut(&home.path("a.db"), 0)),
            ("cut", &|home| cut(&home.path("a.db"), 4_096)),
            ("log emptied", &|home| cut(&home.path("a.db-wal"), 0)),
            ("log cut", &|home| cut(&home.path("a.db-wal"), 5_000)),
            ("log overwritten", &|home| {
                let len = home.path("a.db-wal").metadata().expect("there").len();
                std::fs::write(home.path("a.db-wal"), vec![7; len as usize]).expect("written");
            }),
        ];
        for (way, spoil) in ways {
            let home = Home::new();
            let mut db = home.open(LockMode::Exclusive);
            // Data in both the file and the log.
            checkpoint(&db, "TRUNCATE");
            db.renew();
            write(&mut db, 3).expect("it is whole");
            later();
            spoil(&home);
            let lost = write(&mut db, 1).expect_err(way).to_string();
            assert!(lost.contains("overwrote or truncated"), "{way}: {lost}");
            assert!(write(&mut db, 1).is_err(), "{way}: and it stays so");
        }
    }
}
