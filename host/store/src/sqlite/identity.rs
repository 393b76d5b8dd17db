//! Whether an open database is still the file at its path.
//!
//! SQLite goes on writing to a file that was deleted or moved away, and whatever it is told then is gone with the process. It also
//! believes its own memory of a file that something else has overwritten. So the database and its write-ahead log are looked at before
//! a transaction and compared with how they looked after the one before it.

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::hold::{Hold, Id};
use super::{beside, wal};

/// Bytes of a database's header.
const HEADER_BYTES: usize = 100;

/// Why nothing may be written any more. It holds until the file is there again as it was, which only moving it back can achieve, or
/// until a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost(String);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a file looks from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    id: Id,
    len: u64,
    /// Seconds and nanoseconds of the last change.
    modified: (i64, i64),
}

impl FileStamp {
    fn of(path: &Path) -> std::io::Result<FileStamp> {
        let found = path.metadata()?;
        let modified = (found.mtime(), found.mtime_nsec());
        Ok(FileStamp { id: (found.dev(), found.ino()), len: found.len(), modified })
    }
}

/// What is remembered of an open database.
pub struct Identity {
    hold: Hold,
    database: Watched,
    log: Watched,
    /// The header as it was when the file changed last.
    header: Header,
    /// SQLite's count of commits by other connections.
    commits: i64,
    /// The last check failed: what is there now is not what is to be remembered.
    is_lost: bool,
}

struct Watched {
    path: PathBuf,
    stamp: FileStamp,
}

/// How a file is not what it was.
enum Change {
    /// It is the same file with another content.
    Content(FileStamp),
    Lost(Lost),
}

impl Watched {
    fn new(path: PathBuf) -> std::io::Result<Watched> {
        let stamp = FileStamp::of(&path)?;
        Ok(Watched { path, stamp })
    }

    fn look(&self) -> Result<(), Change> {
        match FileStamp::of(&self.path) {
            Ok(stamp) if stamp == self.stamp => Ok(()),
            Ok(stamp) if stamp.id == self.stamp.id => Err(Change::Content(stamp)),
            Ok(_) => Err(Change::Lost(self.lost(
                "another file was put in its place while it was open",
                "stop the server, put the right file there, and start it",
            ))),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(Change::Lost(self.lost(
                "it was deleted or moved away while it was open",
                "move it back, and writing goes on by itself; if it is lost, restore a backup and restart the server",
            ))),
            Err(e) => Err(Change::Lost(self.lost(
                &format!("it cannot be read: {e}"),
                "make its folder accessible again, and writing goes on by itself",
            ))),
        }
    }

    /// Whether it changed. A file that took its place meanwhile is found by the next look.
    fn renew(&mut self) -> bool {
        match FileStamp::of(&self.path) {
            Ok(stamp) if stamp.id == self.stamp.id && stamp != self.stamp => {
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
    /// Remembers a database that `db` has just opened and read.
    ///
    /// # Errors
    /// It is not what `hold` holds, or it cannot be looked at.
    pub fn new(hold: Hold, db: &Connection, path: &Path) -> Result<Identity, String> {
        // Absolute, so that a change of the working directory changes nothing; with its links, so that one that leads elsewhere does.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let unreadable = |e: std::io::Error| format!("it cannot be read: {e}");
        let real = path.canonicalize().map_err(unreadable)?;
        let database = Watched::new(path).map_err(unreadable)?;
        if database.stamp.id != hold.id() {
            return Err("another file was put in its place while it was being opened".to_owned());
        }
        // SQLite creates the log when it first reads.
        let first: rusqlite::Result<i64> = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0));
        first.map_err(|e| super::describe(&e))?;
        let log = Watched::new(beside(&real, "-wal")).map_err(|e| format!("its write-ahead log: {e}"))?;
        let header = Header(hold.head().map_err(unreadable)?);
        let commits = commits(db).map_err(|e| super::describe(&e))?;
        Ok(Identity { hold, database, log, header, commits, is_lost: false })
    }

    /// To be called before each transaction: two look-ups, unless something changed.
    ///
    /// # Errors
    /// Nothing may be written: the database is not the file at its path any more, or something other than SQLite wrote into it.
    pub fn check(&mut self, db: &Connection) -> Result<(), Lost> {
        let checked = self.check_files(db);
        self.is_lost = checked.is_err();
        checked
    }

    fn check_files(&mut self, db: &Connection) -> Result<(), Lost> {
        let database = match self.database.look() {
            Err(Change::Lost(lost)) => return Err(lost),
            Err(Change::Content(stamp)) => Some(stamp),
            Ok(()) => None,
        };
        let log = match self.log.look() {
            Err(Change::Lost(lost)) => return Err(lost),
            Err(Change::Content(stamp)) => Some(stamp),
            Ok(()) => None,
        };
        if database.is_none() && log.is_none() {
            return Ok(());
        }
        // Another process may use the database by SQLite's rules: a commit of its own explains all.
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

    /// To be called after each transaction and each checkpoint: how the files look now is as they are to look.
    pub fn renew(&mut self) {
        if self.is_lost {
            return;
        }
        self.log.renew();
        if self.database.renew()
            && let Ok(header) = self.hold.head()
        {
            self.header = Header(header);
        }
    }

    /// Whether the database file may look like this with no commit by anybody else: its last change was only touched, or another
    /// process moved frames out of the log into it.
    fn is_explained(&self, now: FileStamp, frames: LogFrames) -> bool {
        let Ok(header) = self.hold.head().map(Header) else { return false };
        if header == self.header {
            return now.len == self.database.stamp.len;
        }
        let is_checkpointed = self.log.stamp.len > 0 && (frames.in_database > 0 || frames.in_log == 0);
        is_checkpointed && header.follows(&self.header) && now.len >= header.len()
    }

    /// Whether the log still holds all that SQLite believes to be in it.
    fn is_log_whole(&self, frames: LogFrames) -> bool {
        let page_bytes = self.header.page_bytes() as usize;
        frames.in_log == 0 || wal::scan(&self.log.path, page_bytes).is_ok_and(|scan| scan.valid >= frames.in_log)
    }
}

/// How many commits of other connections SQLite has seen.
fn commits(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// Frames of the log as SQLite knows them.
#[derive(Debug, Clone, Copy, Default)]
struct LogFrames {
    in_log: u64,
    /// Of these, those that were copied into the database.
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

    /// What the file must have at least.
    fn len(&self) -> u64 {
        u64::from(self.number(28)) * self.page_bytes()
    }

    /// Whether it can be the header of the same database at a later time: the same kind, and a change counter that went forward.
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
    use crate::sqlite::{Held, Use, prepare};

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Home {
            Home(tempfile::tempdir().expect("a folder"))
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// A database that is watched, with something in it and in its log.
        fn open(&self, usage: Use) -> Held {
            let file = self.path("a.db");
            let hold = prepare(&file, usage, Default::default(), &[]).expect("held");
            let mut db = Held::new(Connection::open(&file).expect("opened"), &file, hold);
            db.pragma_update(None, "journal_mode", "WAL").expect("set");
            db.execute_batch("CREATE TABLE IF NOT EXISTS t (a)").expect("made");
            db.watch(Default::default()).expect("it is there");
            write(&mut db, 1).expect("it is whole");
            db
        }
    }

    /// One transaction, as a writer makes it.
    fn write(db: &mut Held, rows: usize) -> Result<(), Lost> {
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

    /// Later than the granularity of a file's time.
    fn later() {
        std::thread::sleep(Duration::from_millis(20));
    }

    #[test]
    fn what_sqlite_writes_is_no_change_from_outside() {
        let home = Home::new();
        let mut db = home.open(Use::Alone);
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
        let mut db = home.open(Use::Shared);
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
    fn a_file_that_is_only_touched_is_still_the_same() {
        let home = Home::new();
        let mut db = home.open(Use::Alone);
        for name in ["a.db", "a.db-wal"] {
            // SQLite's locks end where another descriptor of the database is closed: one of a log ends nothing.
            let file = std::fs::File::options().append(true).open(home.path(name)).expect("there");
            file.set_modified(std::time::UNIX_EPOCH).expect("touched");
            write(&mut db, 1).expect(name);
        }
    }

    #[test]
    fn a_file_that_is_gone_stops_writing_until_it_is_back() {
        let home = Home::new();
        let mut db = home.open(Use::Alone);
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
    fn another_file_in_its_place_stops_writing() {
        let home = Home::new();
        let mut db = home.open(Use::Alone);
        std::fs::copy(home.path("a.db"), home.path("b.db")).expect("copied");
        std::fs::rename(home.path("b.db"), home.path("a.db")).expect("replaced");
        let lost = write(&mut db, 1).expect_err("it is another file").to_string();
        assert!(lost.contains("another file was put in its place"), "{lost}");
        // What SQLite does when the last connection ends must not touch the log of the new file.
        std::fs::remove_file(home.path("a.db-wal")).expect("removed");
        std::fs::write(home.path("a.db-wal"), "the new file's").expect("written");
        drop(db);
        assert!(home.path("a.db-wal").exists());
    }

    #[test]
    fn a_link_that_leads_elsewhere_stops_writing() {
        let home = Home::new();
        drop(home.open(Use::Alone));
        for name in ["b.db", "c.db"] {
            std::fs::copy(home.path("a.db"), home.path(name)).expect("copied");
        }
        std::fs::remove_file(home.path("a.db")).expect("removed");
        std::os::unix::fs::symlink(home.path("b.db"), home.path("a.db")).expect("linked");
        let mut db = home.open(Use::Alone);
        std::fs::remove_file(home.path("a.db")).expect("removed");
        std::os::unix::fs::symlink(home.path("c.db"), home.path("a.db")).expect("linked");
        assert!(write(&mut db, 1).is_err());
    }

    #[test]
    fn a_file_that_is_overwritten_or_truncated_stops_writing() {
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
            let mut db = home.open(Use::Alone);
            // So that the file itself has something, and the log too.
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
