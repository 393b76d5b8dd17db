//! Random hostile plugin folders and the real program: whatever a folder contains, `ace plugins` and `ace check` end and report each
//! file, and a running `ace serve` survives and keeps sending.
//!
//! A generator that knows the formats makes the files: components whose sections are recombined, core modules of random code under
//! random names, nested types and components, manifests, signatures, and damaged entries of the cache. The same seed makes the same
//! files. `make soak` runs 20,000 of them (`ACE_SOAK_FILES`) with a seed of its own (`ACE_SOAK_SEED`), which is printed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::hostile::names::mangled;
use crate::loader::Numbers;
use crate::serve::{LISTEN, Server};
use crate::support::{Done, Home, message, repository};

/// Files of a round: a folder of them, or the files copied beside a server before it is queried again.
const FOLDER: usize = 200;
const DROPPED: usize = 40;
/// No round takes longer.
const ROUND: Duration = Duration::from_secs(1_800);

const LIMITS: &str = "[limits]\nmemory = '8MiB'\ntime = '50ms'\npolicy-call-timeout = '200ms'\nchannel-call-timeout = '200ms'\n\
    [compiler]\nmemory = '256MiB'\ncpu-time = '2s'\ntimeout = '60s'\n";

const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";

/// Generates hostile files from a seed.
struct Hostile {
    numbers: Numbers,
    /// Valid components to start from.
    sound: Vec<Vec<u8>>,
}

impl Hostile {
    fn new(seed: u64) -> Hostile {
        let built =
            ["plugins/stub_policy", "plugins/file_email", "test-plugins/from_1_2_0", "test-plugins/faulty_policy"];
        let built = built.map(|name| std::fs::read(repository(&format!("target/{name}.wasm"))).expect("a plugin"));
        let by_hand = wat::parse_str(include_str!("hostile/policy.wat")).expect("it is valid");
        Hostile { numbers: Numbers(seed), sound: built.into_iter().chain([by_hand]).collect() }
    }

    fn below(&mut self, end: usize) -> usize {
        self.numbers.below(end)
    }

    fn component(&mut self) -> Vec<u8> {
        let at = self.below(self.sound.len());
        let sound = self.sound[at].clone();
        match self.below(12) {
            0..=2 => self.numbers.mutate(&sound),
            3..=5 => self.shaken(&sound, 0),
            6..=8 => self.grown(),
            9 => self.nested_types(),
            10 => self.nested_components(sound),
            _ => {
                let length = self.below(400);
                COMPONENT.into_iter().chain((0..length).map(|_| self.below(256) as u8)).collect()
            }
        }
    }

    /// Splits a module or component into sections, changes some of them, including nested modules, and recombines them.
    fn shaken(&mut self, binary: &[u8], depth: usize) -> Vec<u8> {
        let Some((header, body)) = binary.split_at_checked(8) else { return self.numbers.mutate(b"\0") };
        let mut sections = sections(body);
        for _ in 0..=self.below(3) {
            if sections.is_empty() {
                break;
            }
            let (at, to) = (self.below(sections.len()), self.below(sections.len()));
            match self.below(8) {
                0 => drop(sections.remove(at)),
                1 => sections.insert(to, sections[at].clone()),
                2 => sections.swap(at, to),
                3 => sections[at].0 = self.below(14) as u8,
                4 | 5 if sections[at].1.starts_with(b"\0asm") && depth < 4 => {
                    sections[at].1 = self.shaken(&sections[at].1.clone(), depth + 1);
                }
                6 => {
                    let other = self.below(self.sound.len());
                    let others = self::sections(&self.sound[other][8..]);
                    let taken = self.below(others.len());
                    sections.insert(to, others[taken].clone());
                }
                _ if sections[at].1.is_empty() => {}
                _ => sections[at].1 = self.numbers.mutate(&sections[at].1.clone()),
            }
        }
        let mut bytes = header.to_vec();
        for (id, content) in sections {
            bytes.push(id);
            // Sometimes a wrong length.
            let lie = if self.below(200) == 0 { self.below(1 << 20) } else { 0 };
            leb(&mut bytes, content.len() + lie);
            bytes.extend(content);
        }
        bytes
    }

    /// hostile/policy.wat with random code.
    fn grown(&mut self) -> Vec<u8> {
        let functions = 1 + self.below(6);
        let mut module = String::new();
        for at in 0..functions {
            let (name, locals) = (self.name(), self.below(50));
            let depth = 2 + self.below(6);
            let body = self.expression(functions, depth);
            module += &format!(
                "(func $g{at} (@name \"{name}\") (param i32) (result i32) (local{}) {body})\n",
                " i64".repeat(locals)
            );
        }
        for _ in 0..self.below(4) {
            let bits = 1 + self.below(20);
            let n = self.below(1 << bits);
            module += &match self.below(6) {
                0 => format!("(memory {n})"),
                1 => format!("(table {n} funcref)"),
                2 => format!("(data (i32.const {n}) \"{}\")", "x".repeat(n % 5_000)),
                3 => format!("(global (mut i64) (i64.const {n}))"),
                4 => "(func $start (drop (call $g0 (i32.const 1)))) (start $start)".to_owned(),
                _ => format!("(@custom \"name\" \"{}\")", self.name()),
            };
        }
        let check = format!("(drop (call $g0 (i32.const {})))", self.below(100_000));
        let text = include_str!("hostile/policy.wat").replace("(;module;)", &module).replace("(;check;)", &check);
        // Text that is not a valid module is not of interest.
        wat::parse_str(text).unwrap_or_else(|_| COMPONENT.to_vec())
    }

    /// Code that results in a number.
    fn expression(&mut self, functions: usize, depth: usize) -> String {
        if depth == 0 {
            let n = self.below(1 << 30);
            return if n.is_multiple_of(2) { "(local.get 0)".to_owned() } else { format!("(i32.const {n})") };
        }
        let mut part = || self.expression(functions, depth - 1);
        let (a, b, c) = (part(), part(), part());
        let n = self.below(functions);
        match self.below(14) {
            0 => format!("(i32.add {a} {b})"),
            1 => format!("(i32.div_s {a} {b})"),
            2 => format!("(i32.load {a})"),
            3 => format!("(i32.store {a} {b}) {c}"),
            4 => format!("(block (result i32) {a})"),
            5 => format!("(loop (result i32) {a})"),
            6 => format!("(loop (result i32) (br_if 0 {a}) {b})"),
            7 => format!("(if (result i32) {a} (then {b}) (else {c}))"),
            8 | 9 => format!("(call $g{n} {a})"),
            10 => format!("(memory.grow {a})"),
            11 => format!("(i32.trunc_f64_s (f64.div (f64.convert_i32_s {a}) (f64.convert_i32_s {b})))"),
            12 => format!("(memory.fill {a} {b} {c}) {a}"),
            _ => "(unreachable)".to_owned(),
        }
    }

    /// The name of a function in the text format.
    fn name(&mut self) -> String {
        let name = match self.below(5) {
            0 => mangled(3 + self.below(90)),
            1 => "n".repeat(self.below(70_000)),
            2 => "\u{1b}[2J\r\n\u{202e}\u{200b}\u{0}".repeat(1 + self.below(9)),
            3 => format!("_RNv{}", "C1a".repeat(self.below(300))),
            _ => "plain".to_owned(),
        };
        name.bytes().map(|byte| format!("\\{byte:02x}")).collect()
    }

    /// Nested component types.
    fn nested_types(&mut self) -> Vec<u8> {
        let depth = 1 + self.below(3_000);
        let types: Vec<u8> = std::iter::repeat_n([0x41, 0x01, 0x01], depth).flatten().collect();
        let content = [&[1][..], &types, &[0x41, 0x00]].concat();
        let mut bytes = COMPONENT.to_vec();
        bytes.push(7);
        leb(&mut bytes, content.len());
        [bytes, content].concat()
    }

    fn nested_components(&mut self, mut inner: Vec<u8>) -> Vec<u8> {
        for _ in 0..self.below(150) {
            let mut outer = COMPONENT.to_vec();
            outer.push(4);
            leb(&mut outer, inner.len());
            outer.extend(inner);
            inner = outer;
        }
        inner
    }

    fn manifest(&mut self) -> Vec<u8> {
        const SOUND: &str = "version = '1.0.0'\ndescription = 'é'\n[requests]\nhttp = ['https://a.example/']\n\
            keyvalue = ['facts:read']\n[defaults]\na = { b = [1, 'x'] }\n[runtime]\nmemory = '4MiB'\ntime = '20ms'\n";
        match self.below(4) {
            0 => SOUND.into(),
            1 => "[".repeat(self.below(60_000)).into(),
            _ => self.numbers.mutate(SOUND.as_bytes()),
        }
    }

    fn signature(&mut self) -> Vec<u8> {
        let sound = format!(
            "untrusted comment: x\nRWQ{}\ntrusted comment: openedx-ace plugin h0\n{}\n",
            "A".repeat(96),
            "B".repeat(88)
        );
        self.numbers.mutate(sound.as_bytes())
    }

    /// Puts the files of one plugin into the plugin folder.
    fn put(&mut self, home: &Home, name: &str) {
        home.file(&format!("plugins/{name}.wasm"), self.component());
        if self.below(2) == 0 {
            home.file(&format!("plugins/{name}.toml"), self.manifest());
        }
        if self.below(5) == 0 {
            home.file(&format!("plugins/{name}.wasm.minisig"), self.signature());
        }
    }
}

/// The ids and contents of sections, as far as the bytes are valid.
fn sections(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((&id, rest)) = body.split_first() {
        let (mut length, mut used) = (0_usize, 0);
        for &byte in rest.iter().take(5) {
            length |= usize::from(byte & 0x7f) << (7 * used);
            used += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let content = &rest[used.min(rest.len())..];
        let length = length.min(content.len());
        found.push((id, content[..length].to_vec()));
        body = &content[length..];
    }
    found
}

fn leb(bytes: &mut Vec<u8>, mut n: usize) {
    while n > 0x7f {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Runs a command on the folder. It must end by itself, with exit code 0 or 1.
fn run(home: &Home, arguments: &[&str], seed: u64) -> Done {
    let done = home.ace(arguments).run_within(ROUND);
    assert!(
        matches!(done.code, Some(0 | 1)),
        "{arguments:?} with ACE_SOAK_SEED={seed}: {:?}\n{}",
        done.code,
        done.stderr
    );
    done
}

/// The names that `ace plugins` lists, and those that are active.
fn listed(home: &Home, seed: u64) -> (BTreeSet<String>, BTreeSet<String>) {
    let lines = run(home, &["plugins", "--json"], seed).lines();
    let names = |lines: &mut dyn Iterator<Item = &Value>| {
        lines.map(|line| line["name"].as_str().expect("a name").to_owned()).collect::<BTreeSet<String>>()
    };
    for line in &lines {
        let length = line.to_string().len();
        assert!(length < 64 << 10, "{} takes {length} bytes to list, with ACE_SOAK_SEED={seed}", line["name"]);
        if line["state"]["state"] == "broken" {
            let reason = line["state"]["reason"].as_str().expect("a reason");
            let hidden = |c: char| (c.is_control() && c != '\n') || ('\u{200b}'..='\u{202e}').contains(&c);
            assert!(!reason.trim().is_empty() && !reason.contains(hidden), "{line}, with ACE_SOAK_SEED={seed}");
        }
    }
    let serving = names(&mut lines.iter().filter(|line| line["state"]["state"] == "active"));
    (names(&mut lines.iter()), serving)
}

/// Lists and checks a folder of files; then only the active plugins, with damaged code in the cache.
fn folder(seed: u64, files: usize) {
    let (home, mut hostile) = (Home::empty(), Hostile::new(seed));
    home.plugin("stub_policy");
    let is_signed = hostile.below(4) == 0;
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let signed = format!("[plugin-signatures]\nrequired = true\nkeys = ['{key}']\n");
    let signed = if is_signed { signed.as_str() } else { "" };
    home.file("ace.toml", format!("plugin-dir = 'plugins'\ncache-dir = 'cache'\n{LIMITS}{signed}"));
    (0..files).for_each(|n| hostile.put(&home, &format!("h{n}")));
    let (names, serving) = listed(&home, seed);
    assert_eq!(names.len(), files + 1, "each is listed, with ACE_SOAK_SEED={seed}");
    assert_eq!(serving.contains("stub_policy"), !is_signed, "with ACE_SOAK_SEED={seed}");
    run(&home, &["check", "--json"], seed);
    for name in names.difference(&serving) {
        for ending in ["wasm", "toml", "wasm.minisig"] {
            let _ = std::fs::remove_file(home.path(&format!("plugins/{name}.{ending}")));
        }
    }
    for entry in home.list("cache") {
        if hostile.below(3) > 0 {
            let path = home.path("cache").join(entry);
            let code = std::fs::read(&path).expect("compiled code");
            let damaged = match hostile.below(3) {
                0 => code[..hostile.below(code.len())].to_vec(),
                _ => hostile.numbers.mutate(&code),
            };
            std::fs::remove_file(&path).expect("removed");
            std::fs::write(&path, damaged).expect("written");
        }
    }
    assert_eq!(listed(&home, seed).1, serving, "damaged code is made anew, with ACE_SOAK_SEED={seed}");
}

/// The plugins that a server lists. It answers at once, whatever it is loading.
async fn plugins(server: &Server) -> BTreeSet<String> {
    let (_, listed) = server.get("/v1/plugins").await;
    let listed = listed.as_array().unwrap_or_else(|| panic!("{listed}")).clone();
    listed.iter().map(|plugin| plugin["name"].as_str().expect("a name").to_owned()).collect()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + ROUND;
    while !holds().await {
        assert!(Instant::now() < end, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Copies files into the plugin folder of a running server, some of them in two parts, and removes them again.
async fn dropped(seed: u64, files: usize) {
    let mut hostile = Hostile::new(seed);
    let home = crate::serve::home(&format!("{LISTEN}{LIMITS}"));
    home.plugin("stub_policy");
    let mut server = Server::start(&home);
    let before = plugins(&server).await;
    for round in 0..files.div_ceil(DROPPED) {
        let names: Vec<String> = (0..DROPPED.min(files - round * DROPPED)).map(|n| format!("h{round}_{n}")).collect();
        for name in &names {
            let half = hostile.component();
            home.file(&format!("plugins/{name}.wasm"), &half[..half.len() / 2]);
            hostile.put(&home, name);
        }
        let wanted: BTreeSet<String> = before.iter().chain(&names).cloned().collect();
        until(&format!("each is listed, with ACE_SOAK_SEED={seed}"), async || plugins(&server).await == wanted).await;
        for name in &names {
            for ending in ["wasm", "toml", "wasm.minisig"] {
                let _ = std::fs::remove_file(home.path(&format!("plugins/{name}.{ending}")));
            }
        }
        until(&format!("they are gone, with ACE_SOAK_SEED={seed}"), async || plugins(&server).await == before).await;
        let sent = server.send(&message("note", json!({}))).await;
        assert_eq!(sent["report"]["channels"][0]["state"], "sent", "with ACE_SOAK_SEED={seed}: {sent}");
        let ended = server.child.try_wait().expect("asked");
        assert!(ended.is_none(), "it ended with {ended:?}, with ACE_SOAK_SEED={seed}");
    }
}

#[tokio::test]
async fn no_file_ends_the_program() {
    let (files, seed) = (number("ACE_SOAK_FILES", 36) as usize, number("ACE_SOAK_SEED", 0xace));
    println!("ACE_SOAK_FILES={files} ACE_SOAK_SEED={seed}");
    let (in_folders, beside) = (files - files / 3, files / 3);
    for round in 0..in_folders.div_ceil(FOLDER) {
        let seed = seed.wrapping_add(round as u64);
        println!("folder {round}: ACE_SOAK_SEED={seed}");
        folder(seed, FOLDER.min(in_folders - round * FOLDER));
    }
    dropped(seed, beside).await;
}

#[test]
fn the_same_seed_makes_the_same_files_and_some_of_them_are_valid() {
    let make = |seed| -> Vec<Vec<u8>> {
        let mut hostile = Hostile::new(seed);
        (0..20).map(|_| hostile.component()).collect()
    };
    assert_eq!(make(7), make(7));
    assert_ne!(make(7), make(8));
    assert!(sections(&Hostile::new(0).sound[0][8..]).iter().map(|(_, s)| s.len()).max() > Some(10_000));
}
