use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};

use super::*;
use crate::plugin::Engine;

const METADATA: &[u8] = br#"{"imports":[]}"#;

/// A folder with a cache, and components to store.
struct Story {
    dir: tempfile::TempDir,
    cache: Cache,
    engine: wasmtime::Engine,
}

/// A component that exports a function under this name.
fn code(engine: &wasmtime::Engine, export: &str) -> Vec<u8> {
    let wat = format!(
        "(component (core module $m (func (export \"f\") (result i32) i32.const 7))
         (core instance $i (instantiate $m))
         (func (export \"{export}\") (result s32) (canon lift (core func $i \"f\"))))"
    );
    engine.precompile_component(&wat::parse_str(wat).expect("WAT")).expect("it compiles")
}

fn key(n: u8) -> Key {
    Key { component: [n; 32], settings: 0xace }
}

impl Story {
    fn new() -> Story {
        Story::with(CacheLimits::default())
    }

    fn with(limits: CacheLimits) -> Story {
        let dir = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(dir.path().join("compiled"), limits);
        Story {
            dir,
            cache,
            engine: Engine::new(&crate::Config::default()).expect("wasmtime runs here").wasmtime().clone(),
        }
    }

    fn stored(&self, n: u8) -> PathBuf {
        let code = code(&self.engine, &format!("f{n}"));
        self.cache.store(&key(n), &code[..], METADATA).expect("stored");
        self.path(n)
    }

    fn path(&self, n: u8) -> PathBuf {
        self.cache.dir.join(key(n).file_name())
    }

    fn refusal(&self, n: u8) -> String {
        let folder = self.cache.folder().expect("the folder is used");
        match Entry::open(&folder, self.path(n), &key(n)) {
            Ok(_) => panic!("it is used, or not there"),
            Err(refusal) => refusal.to_string(),
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.cache.dir)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }
}

/// Replaces a file, because entries cannot be written in place.
fn put(path: &Path, content: &[u8]) {
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).expect("made");
    file.write_all(content).expect("written");
}

fn age(path: &Path, days: u64) {
    let at =
        Timespec { tv_sec: (fs::metadata(path).expect("it is there").mtime()) - (days * 86_400) as i64, tv_nsec: 0 };
    let file = File::open(path).expect("it is there");
    rustix::fs::futimens(file, &Timestamps { last_access: at, last_modification: at }).expect("set");
}

#[test]
fn stored_code_is_mapped_with_its_metadata_and_only_its_owner_can_read_it() {
    let story = Story::new();
    assert!(story.cache.open(&key(1)).is_none(), "nothing was stored");
    let path = story.stored(1);
    let entry = story.cache.open(&key(1)).expect("it was stored");
    assert_eq!(entry.metadata(), METADATA);
    let (component, _pin) = entry.load(&story.engine).expect("wasmtime takes it");
    let exports: Vec<String> =
        component.component_type().exports(&story.engine).map(|(name, _)| name.to_owned()).collect();
    assert_eq!(exports, ["f1"]);
    assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o777, 0o400);
    assert_eq!(fs::metadata(&story.cache.dir).expect("it is there").mode() & 0o777, 0o700);
    assert_eq!(story.names().len(), 1, "nothing temporary is left: {:?}", story.names());
}

#[test]
fn code_that_cannot_be_mapped_is_copied() {
    let story = Story::new();
    story.stored(1);
    let entry = story.cache.open(&key(1)).expect("it was stored");
    let mut code = vec![0; entry.code_bytes];
    entry.file.read_exact_at(&mut code, 0).expect("read");
    assert!(code == self::code(&story.engine, "f1"), "the code is what was stored, without what follows it");
}

#[test]
fn damage_in_any_byte_is_a_miss_until_the_next_store() {
    let story = Story::new();
    let path = story.stored(1);
    let whole = fs::read(&path).expect("it is there");
    for at in 0..whole.len() {
        // Every byte of metadata and trailer, and some bytes of the code.
        if at > whole.len() - TRAILER_BYTES - METADATA.len() || at % 37 == 0 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            put(&path, &damaged);
            assert!(story.cache.open(&key(1)).is_none(), "byte {at} of {} is damaged", whole.len());
        }
    }
    story.stored(1);
    assert!(story.cache.open(&key(1)).expect("it is whole again").load(&story.engine).is_some());
}

#[test]
fn a_file_that_is_not_an_entry_is_a_miss() {
    let story = Story::new();
    let (path, other) = (story.stored(1), story.stored(2));
    let whole = fs::read(&path).expect("it is there");
    let of = |key: &Key, code: &[u8], metadata: &[u8]| {
        let mut bytes = [code, metadata, &lengths_and_key(code.len() as u64, metadata.len() as u64, key)].concat();
        let sum = XxHash3_128::oneshot(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    };
    let zeroed = |range: std::ops::Range<usize>| {
        let mut bytes = whole.clone();
        bytes[range].fill(0);
        bytes
    };
    let half = whole.len() / 2;
    let cases: [(&str, Vec<u8>, &str); 14] = [
        ("empty", vec![], "it is truncated"),
        ("one byte", vec![0x7f], "it is truncated"),
        ("its first half", whole[..half].to_vec(), "it has no valid trailer"),
        ("without its last byte", whole[..whole.len() - 1].to_vec(), "it has no valid trailer"),
        ("without its first byte", whole[1..].to_vec(), "its length is wrong"),
        ("one byte longer", [&whole[..], b"\0"].concat(), "it has no valid trailer"),
        ("twice", [&whole[..], &whole[..]].concat(), "its length is wrong"),
        ("a page of zeros at its start", zeroed(0..4096), "its checksum is wrong"),
        ("a page of zeros in the middle", zeroed(half..half + 4096), "its checksum is wrong"),
        ("all zeros", zeroed(0..whole.len()), "it has no valid trailer"),
        ("another plugin's", fs::read(&other).expect("it is there"), "it is the code of another plugin"),
        ("of other settings", of(&Key { settings: 1, ..key(1) }, b"code", b""), "or was compiled with other settings"),
        ("what wasmtime wrote, alone", code(&story.engine, "f1"), "it has no valid trailer"),
        ("text", b"not code at all".repeat(100), "it has no valid trailer"),
    ];
    for (what, content, words) in cases {
        put(&path, &content);
        let refusal = story.refusal(1);
        assert!(refusal.contains(words) && refusal.contains(&*path.to_string_lossy()), "{what}: {refusal}");
        assert!(story.cache.open(&key(1)).is_none());
    }
    // Its trailer is valid, and wasmtime rejects the code: an error, not a crash.
    put(&path, &of(&key(1), &[0; 5000], b""));
    assert!(story.cache.open(&key(1)).expect("it is an entry").load(&story.engine).is_none());
}

#[test]
fn a_file_that_others_may_have_written_is_not_used() {
    let story = Story::new();
    let path = story.stored(1);
    let whole = fs::read(&path).expect("it is there");
    for mode in [0o666, 0o620, 0o602, 0o777, 0o4722] {
        put(&path, &whole);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        let refusal = story.refusal(1);
        assert!(refusal.contains("other users may write into") && refusal.contains("chmod go-w"), "{refusal}");
    }
    put(&path, &whole);
    fs::hard_link(&path, story.dir.path().join("elsewhere")).expect("linked");
    assert!(story.refusal(1).contains("has 2 names"), "{}", story.refusal(1));
    fs::rename(story.dir.path().join("elsewhere"), story.dir.path().join("target")).expect("renamed");
    fs::remove_file(&path).expect("removed");
    symlink(story.dir.path().join("target"), &path).expect("linked");
    assert!(story.refusal(1).contains("is not a regular file"), "{}", story.refusal(1));
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("made");
    assert!(story.refusal(1).contains("is not a regular file"), "{}", story.refusal(1));
    fs::remove_dir(&path).expect("removed");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).expect("made");
    assert!(story.refusal(1).contains("is not a regular file"), "{}", story.refusal(1));
    put(&path, &whole);
    assert!(story.cache.open(&key(1)).is_some());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12_345), None).expect("changed");
        assert!(story.refusal(1).contains("belongs to the user with id 12345"), "{}", story.refusal(1));
    }
    // A new entry replaces the one that is not used.
    story.stored(1);
    assert!(story.cache.open(&key(1)).is_some());
}

#[test]
fn a_folder_that_others_may_write_into_is_neither_read_nor_written() {
    let story = Story::new();
    story.stored(1);
    let set = |mode| fs::set_permissions(&story.cache.dir, fs::Permissions::from_mode(mode)).expect("set");
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        set(mode);
        assert!(story.cache.open(&key(1)).is_none(), "{mode:o}");
        assert!(story.cache.store(&key(2), &b"code"[..], b"").is_none(), "{mode:o}");
        story.cache.prune();
        assert_eq!(story.names().len(), 1, "{mode:o}");
    }
    set(0o755);
    assert!(story.cache.open(&key(1)).is_some(), "others may read");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&story.cache.dir, Some(12_345), None).expect("changed");
        assert!(story.cache.open(&key(1)).is_none(), "it belongs to somebody else");
    }
}

#[test]
fn a_cache_dir_that_is_not_a_folder_is_not_used() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("file"), "").expect("written");
    for folder in ["file", "file/below"] {
        let cache = Cache::new(dir.path().join(folder), CacheLimits::default());
        assert!(cache.open(&key(1)).is_none());
        assert!(cache.store(&key(1), &b"code"[..], b"").is_none());
        cache.prune();
    }
}

#[test]
fn entries_expire_unless_they_are_mapped() {
    let story = Story::new();
    let old = [story.stored(1), story.stored(2), story.stored(3)];
    let pinned = story.cache.open(&key(1)).expect("stored").load(&story.engine).expect("loaded");
    old.iter().for_each(|path| age(path, 31));
    age(&story.stored(4), 29);
    let kept = story.cache.open(&key(3)).expect("stored");
    drop(kept);
    story.cache.prune();
    let left: Vec<bool> = (1..=4).map(|n| story.path(n).exists()).collect();
    assert_eq!(left, [true, false, true, true], "one is mapped, one was used just now, one is young");
    drop(pinned);
    age(&old[0], 31);
    story.cache.prune();
    assert!(!old[0].exists(), "it is not mapped any more");
}

#[test]
fn the_least_recently_used_entries_are_removed_until_the_rest_fits() {
    let one = Story::new().stored(1).metadata().expect("it is there").len() as usize;
    let story = Story::with(CacheLimits { max_bytes: one * 5 / 2, ..CacheLimits::default() });
    for n in 1..=4 {
        age(&story.stored(n), 10 - u64::from(n));
    }
    let _pinned = story.cache.open(&key(1)).expect("stored").load(&story.engine).expect("loaded");
    age(&story.path(1), 20);
    story.cache.prune();
    let left: Vec<bool> = (1..=4).map(|n| story.path(n).exists()).collect();
    assert_eq!(left, [true, false, false, true], "the first is the oldest, and in use");
}

#[test]
fn temporary_files_of_killed_processes_are_removed_but_not_others() {
    let story = Story::new();
    story.stored(1);
    let left_behind = format!("{}.{}.tmp", key(2).file_name(), uuid::Uuid::nil());
    let older_form = format!("{}.{}.tmp", &key(2).file_name()[..81], uuid::Uuid::nil());
    let foreign = ["README", "a.cwasm", "notes.tmp", "0-0.cwasm"];
    for name in [&left_behind[..], &older_form].iter().chain(&foreign) {
        put(&story.cache.dir.join(name), b"half");
    }
    let folder = story.cache.folder().expect("the folder is used");
    let (being_written, _file) = create_temporary(&folder, &key(3)).expect("made");
    story.cache.prune();
    let names = story.names();
    assert!(!names.contains(&left_behind) && !names.contains(&older_form), "{names:?}");
    assert!(names.contains(&being_written), "{names:?}");
    assert!(foreign.iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
    assert_eq!(names.len(), 6, "{names:?}");
}

#[test]
fn metadata_is_bounded_and_a_failed_store_leaves_nothing() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the compiler died"))
        }
    }
    let story = Story::new();
    assert!(story.cache.store(&key(1), &b"code"[..], &vec![b' '; METADATA_BYTES_MAX + 1]).is_none());
    assert!(story.cache.store(&key(1), b"code".chain(Broken), b"").is_none());
    assert_eq!(story.names(), Vec::<String>::new());
    assert!(story.cache.store(&key(1), &b"code"[..], &vec![b' '; METADATA_BYTES_MAX]).is_some());
}
