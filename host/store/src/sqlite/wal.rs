//! Scans a write-ahead log, by the rules that SQLite applies (<https://sqlite.org/fileformat2.html#walformat>).
//!
//! SQLite applies the frames before the first invalid one and silently drops the rest. That is right for the end of a log that was
//! being written when the process was killed. But if a frame in the middle is damaged, committed transactions after it are lost.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The last bit is the byte order of checksums.
const MAGIC: u32 = 0x377f_0682;
/// The valid sizes of a page, in bytes.
const PAGE_BYTES: std::ops::RangeInclusive<usize> = 512..=65_536;

/// The result of a scan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Valid frames at the start; SQLite applies them up to the last commit among them.
    pub valid: u64,
    /// Frames of the same log after an invalid one.
    pub after: u64,
    /// Commits among those.
    pub lost_commits: u64,
}

/// The running checksum of a log.
#[derive(Clone, Copy)]
struct Checksum {
    is_big_endian: bool,
    sums: (u32, u32),
}

impl Checksum {
    /// Adds bytes, whose number is a multiple of 8.
    fn add(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8]| {
            let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
            if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let (mut s0, mut s1) = self.sums;
        for pair in bytes.chunks_exact(8) {
            s0 = s0.wrapping_add(word(&pair[..4])).wrapping_add(s1);
            s1 = s1.wrapping_add(word(&pair[4..])).wrapping_add(s0);
        }
        self.sums = (s0, s1);
    }
}

/// A big-endian number in a header.
fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Identifies the generation of the log that a frame belongs to.
type Salts = (u32, u32);

struct Header {
    page_bytes: usize,
    /// `None` if the header is damaged: those of the first frame are used.
    salts: Option<Salts>,
    checksum: Checksum,
}

impl Header {
    fn read(bytes: &[u8; HEADER_BYTES], page_bytes: usize) -> Header {
        let magic = number(bytes, 0);
        let mut checksum = Checksum { is_big_endian: magic & 1 == 1, sums: (0, 0) };
        checksum.add(&bytes[..24]);
        let own = number(bytes, 8) as usize;
        let is_valid = magic & !1 == MAGIC
            && checksum.sums == (number(bytes, 24), number(bytes, 28))
            && own.is_power_of_two()
            && PAGE_BYTES.contains(&own);
        if is_valid {
            Header { page_bytes: own, salts: Some((number(bytes, 16), number(bytes, 20))), checksum }
        } else {
            Header { page_bytes, salts: None, checksum }
        }
    }
}

/// Scans a log. A missing or empty log has no frames. `page_bytes`: the page size of the database, in case the log's header is damaged.
/// Blocks.
///
/// # Errors
/// Those of the operating system.
pub(super) fn scan(log: &Path, page_bytes: usize) -> io::Result<Scan> {
    let file = match File::open(log) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Scan::default()),
        opened => opened?,
    };
    scan_frames(&mut BufReader::with_capacity(1 << 20, file), page_bytes)
}

fn scan_frames(log: &mut impl Read, page_bytes: usize) -> io::Result<Scan> {
    let mut header = [0; HEADER_BYTES];
    if !fill(log, &mut header)? {
        return Ok(Scan::default());
    }
    let Header { page_bytes, mut salts, mut checksum } = Header::read(&header, page_bytes);
    if !PAGE_BYTES.contains(&page_bytes) {
        return Ok(Scan::default());
    }
    let (mut scan, mut is_valid) = (Scan::default(), salts.is_some());
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    while fill(log, &mut frame)? {
        let (page, pages_after_commit) = (number(&frame, 0), number(&frame, 4));
        let own_salts = (number(&frame, 8), number(&frame, 12));
        let is_current = page != 0 && own_salts == *salts.get_or_insert(own_salts);
        if is_valid {
            checksum.add(&frame[..8]);
            checksum.add(&frame[FRAME_HEADER_BYTES..]);
            is_valid = is_current && checksum.sums == (number(&frame, 16), number(&frame, 20));
            scan.valid += u64::from(is_valid);
        } else if is_current {
            scan.after += 1;
            scan.lost_commits += u64::from(pages_after_commit != 0);
        }
    }
    Ok(scan)
}

/// Fills the buffer. Returns false if the log is too short.
fn fill(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    const PAGE: usize = 4_096;
    const FRAME: usize = FRAME_HEADER_BYTES + PAGE;

    /// A log that SQLite wrote: a few transactions of one or more frames, without a checkpoint.
    fn log() -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.db");
        let db = Connection::open(&file).expect("opened");
        db.pragma_update(None, "page_size", PAGE as i64).expect("set");
        db.pragma_update(None, "journal_mode", "WAL").expect("set");
        db.pragma_update(None, "wal_autocheckpoint", 0).expect("set");
        db.execute_batch("CREATE TABLE t (a)").expect("made");
        for _ in 0..5 {
            db.execute("INSERT INTO t VALUES (randomblob(9000))", []).expect("written");
        }
        std::fs::read(folder.path().join("a.db-wal")).expect("it is there")
    }

    fn scanned(log: &[u8]) -> Scan {
        scan_frames(&mut &log[..], PAGE).expect("read")
    }

    /// The number of frames that SQLite applies.
    fn frames_of_sqlite(log: &[u8]) -> i64 {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.db");
        let db = Connection::open(&file).expect("opened");
        db.pragma_update(None, "page_size", PAGE as i64).expect("set");
        db.pragma_update(None, "journal_mode", "WAL").expect("set");
        drop(db);
        std::fs::write(folder.path().join("a.db-wal"), log).expect("written");
        let db = Connection::open(&file).expect("opened");
        let _: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).expect("read");
        db.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1)).expect("asked")
    }

    #[test]
    fn a_whole_log_is_valid_to_its_end_and_as_sqlite_sees_it() {
        let log = log();
        let frames = ((log.len() - HEADER_BYTES) / FRAME) as u64;
        assert!(frames > 6);
        assert_eq!(scanned(&log), Scan { valid: frames, after: 0, lost_commits: 0 });
        assert_eq!(frames_of_sqlite(&log), frames as i64);
    }

    #[test]
    fn a_torn_tail_loses_no_commit() {
        let log = log();
        let frames = (log.len() - HEADER_BYTES) / FRAME;
        for cut in [1, 20, FRAME_HEADER_BYTES, FRAME - 1, FRAME] {
            let scan = scanned(&log[..log.len() - cut]);
            assert_eq!(scan, Scan { valid: frames as u64 - 1, after: 0, lost_commits: 0 }, "{cut}");
        }
        let mut garbled = log.clone();
        garbled[log.len() - 5] ^= 1;
        assert_eq!(scanned(&garbled), Scan { valid: frames as u64 - 1, after: 0, lost_commits: 0 });
        let mut grown = log;
        grown.extend(vec![0; 3 * FRAME]);
        assert_eq!(scanned(&grown).lost_commits, 0, "allocated space that was not written");
        for short in [&grown[..0], &grown[..31], &grown[..HEADER_BYTES]] {
            assert_eq!(scanned(short), Scan::default());
        }
    }

    #[test]
    fn frames_of_an_earlier_generation_of_the_log_are_ignored() {
        let mut log = log();
        // As after a reset: the second half has the old salts.
        let middle = HEADER_BYTES + (log.len() - HEADER_BYTES) / FRAME / 2 * FRAME;
        for at in (middle..log.len()).step_by(FRAME) {
            log[at + 8] ^= 1;
        }
        assert_eq!((scanned(&log).after, scanned(&log).lost_commits), (0, 0));
    }

    #[test]
    fn a_bad_frame_in_the_middle_loses_the_commits_after_it() {
        let log = log();
        let frames = (log.len() - HEADER_BYTES) / FRAME;
        let second = HEADER_BYTES + FRAME;
        for (what, at) in [("page", second + 100), ("checksum", second + 16), ("salt", second + 8), ("number", second)]
        {
            let mut bad = log.clone();
            bad[at] ^= 0x40;
            let scan = scanned(&bad);
            assert_eq!((scan.valid, scan.after), (1, frames as u64 - 2), "{what}");
            assert!(scan.lost_commits >= 4, "{what}: {scan:?}");
            assert!(frames_of_sqlite(&bad) <= 1, "{what}: SQLite drops them");
        }
    }

    #[test]
    fn a_log_whose_header_is_damaged_loses_all_its_commits() {
        let log = log();
        for at in [0, 9, 17, 25] {
            let mut bad = log.clone();
            bad[at] ^= 0x40;
            let scan = scanned(&bad);
            assert!(scan.valid == 0 && scan.lost_commits >= 5, "{at}: {scan:?}");
            assert_eq!(frames_of_sqlite(&bad), 0, "SQLite drops them");
        }
    }
}
