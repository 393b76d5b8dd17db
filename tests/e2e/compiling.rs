//! Plugin files are read and compiled in a separate process. What they do to it breaks only that plugin.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ace::internals::plugin::PluginState;
use ace::{Ace, Compile, Config};
use serde_json::Value;

use crate::crafted;
use crate::support::{Home, wait_for};

/// Limits that are reached quickly. A normal plugin is far below them.
const QUICK: &str = "[compiler]\nmemory = '256MiB'\ncpu-time = '2s'\n";

/// A home with these crafted files as plugins, a normal plugin, and a cache of its own.
fn home(files: &[(&'static str, Vec<u8>)]) -> Home {
    let home = Home::new(&["stub_policy"], "");
    configure(&home, QUICK);
    for (name, bytes) in files {
        home.file(&format!("plugins/{name}.wasm"), bytes);
    }
    home
}

fn configure(home: &Home, toml: &str) {
    home.file("ace.toml", format!("plugin-dir = 'plugins'\ncache-dir = 'cache'\n{toml}"));
}

#[track_caller]
fn says_one_of(reason: &str, words: &[&str]) {
    assert!(words.iter().any(|words| reason.contains(words)), "{reason:?} has none of {words:?}");
}

/// A compiler that is a shell with this script.
fn script(text: &str) -> Compile {
    Compile::Command { program: "/bin/sh".into(), arguments: ["-c", text].map(Into::into).to_vec() }
}

/// A compiler that is this build's `ace`.
fn by_ace() -> Compile {
    Compile::Command { program: env!("CARGO_BIN_EXE_ace").into(), arguments: Vec::new() }
}

async fn start(home: &Home, compile: Compile) -> Ace {
    let config = Config::load(&home.path("ace.toml")).unwrap_or_else(|e| panic!("{e}"));
    Ace::builder(config).compiler(compile).start().await.unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn reason(ace: &Ace, plugin: &str) -> String {
    match &ace.registry().plugins[plugin].state {
        PluginState::Broken(reason) => reason.clone(),
        state => panic!("{plugin} is not broken: {state:?}"),
    }
}

#[test]
fn crafted_files_break_only_themselves_and_name_the_limit() {
    let files = crafted::all();
    let home = home(&files.iter().map(|(name, bytes, _)| (*name, bytes.clone())).collect::<Vec<_>>());
    let listed = home.ace(&["plugins", "--json"]).run().code(1);
    let plugins: Vec<Value> = listed.lines();
    let of = |name: &str| plugins.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("{name} in {plugins:?}"));
    assert_eq!(of("stub_policy")["state"]["state"], "active");
    for (name, _, words) in &files {
        says_one_of(of(name)["state"]["reason"].as_str().expect("it is broken"), words);
    }
}

#[test]
fn every_command_that_reads_a_plugin_survives_it() {
    let home = home(&[("nested_types", crafted::nested_types(1_200))]);
    home.file("message.json", r#"{"app_label": "a", "name": "b", "recipient": {"lms_user_id": 1}}"#);
    let file = "plugins/nested_types.wasm";
    home.file("plugins/tests/cases.json", "[]");
    let commands: [&[&str]; 12] = [
        &["check"],
        &["plugins"],
        &["plugins", "nested_types"],
        &["plugins", "grant", "nested_types"],
        &["send", "message.json"],
        &["explain", "message.json"],
        &["plugin", "check", file],
        &["plugin", "inspect", file],
        &["plugin", "run", file, "message.json"],
        &["plugin", "bench", file, "message.json"],
        &["plugin", "install", file],
        &["plugin", "test", file],
    ];
    for command in commands {
        let done = home.ace(command).run();
        assert!(done.code.is_some(), "{command:?} was killed: {}", done.stderr);
    }
    for command in [&["check"][..], &["plugins"], &["plugin", "check", file], &["plugin", "inspect", file]] {
        let done = home.ace(command).run();
        let words = format!("{}{}", done.stdout, done.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("nested too deeply"), "{command:?} says {words}");
    }
}

/// The running child processes of a process.
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    let is_child = |id: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{parent}"))
    };
    ids.filter(is_child).collect()
}

/// `ace plugin check` of a file that takes long, and the process that compiles it. The program is started with an additional open
/// descriptor, as some supervisors do.
fn compiling(home: &Home) -> (Child, u32) {
    configure(home, "[compiler]\nmemory = '8GiB'\ntotal-memory = '8GiB'\n");
    let file = home.file("long.wasm", crafted::live_ranges(300_000));
    let script = format!("exec 9</dev/null; exec {} plugin check {}", env!("CARGO_BIN_EXE_ace"), file.display());
    let mut ace = Command::new("/bin/sh");
    ace.args(["-c", &script]).current_dir(home.path("")).stdout(Stdio::null()).stderr(Stdio::null());
    let ace = ace.spawn().expect("a shell");
    let child = wait_for("the compiler", || {
        let bounded = |id: &u32| proc(*id, "limits").contains("8589934592");
        children(ace.id()).into_iter().find(bounded)
    });
    (ace, child)
}

fn proc(id: u32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default()
}

#[test]
fn a_compiler_limits_itself_and_ends_with_its_host() {
    let (mut ace, child) = compiling(&home(&[]));
    let (limits, status) = (proc(child, "limits"), proc(child, "status"));
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {limits}"));
        line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max address space"), ["8589934592", "8589934592"]);
    assert_eq!(limit("Max cpu time"), ["60", "61"]);
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    assert_eq!(limit("Max open files"), ["16", "16"]);
    assert_eq!(limit("Max file size")[0], (256_u64 * (1 << 20) + (2 << 20)).to_string());
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // Only root can inspect a process that is not dumpable.
    if let Ok(open) = std::fs::read_dir(format!("/proc/{child}/fd")) {
        let open: Vec<_> = open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
        let is_own = |file: &std::path::PathBuf| {
            let name = file.to_string_lossy();
            name.starts_with("/memfd:ace-plugin") || name.starts_with("pipe:")
        };
        assert!(open.iter().all(is_own), "{open:?}");
        assert_eq!(proc(child, "environ"), "");
    }
    ace.kill().expect("it runs");
    ace.wait().expect("it has ended");
    wait_for("the compiler's end", || Some(()).filter(|()| proc(child, "status").is_empty() || is_dead(child)));
}

fn is_dead(id: u32) -> bool {
    proc(id, "status").lines().any(|line| line.starts_with("State:\tZ"))
}

#[tokio::test]
async fn a_cache_hit_starts_no_compiler_and_has_the_same_metadata() {
    let home = home(&[]);
    home.plugin("bulk_email_optout");
    let first = start(&home, by_ace()).await;
    let second = start(&home, script("exit 1")).await;
    for (name, before) in &first.registry().plugins {
        let now = second.registry().plugins[name].clone();
        assert_eq!(
            (&now.state, &now.imports, &now.namespaces),
            (&PluginState::Active, &before.imports, &before.namespaces)
        );
    }
    // Without the cache, the other program is run.
    std::fs::remove_dir_all(home.path("cache")).expect("it is there");
    assert!(reason(&start(&home, script("exit 1")).await, "stub_policy").contains("exit status: 1"));
}

#[tokio::test]
async fn without_a_cache_code_is_passed_in_memory() {
    let home = home(&[]);
    home.file("ace.toml", "plugin-dir = 'plugins'\n");
    let ace = start(&home, by_ace()).await;
    assert_eq!(ace.registry().plugins["stub_policy"].state, PluginState::Active);
}

/// A host with limits of its own, as set by `ulimit`, passes them on.
#[test]
fn a_lower_limit_of_the_host_applies() {
    let home = home(&[]);
    let script = format!("ulimit -t 30; ulimit -n 64; ulimit -f 4096; exec {} plugins", env!("CARGO_BIN_EXE_ace"));
    let done = Command::new("/bin/sh").args(["-c", &script]).current_dir(home.path("")).output().expect("a shell");
    assert!(done.status.success(), "{done:?}");
}

/// The lines that a stub compiler has logged.
fn log(home: &Home) -> Vec<String> {
    std::fs::read_to_string(home.path("log")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn logging(home: &Home, text: &str) -> Compile {
    script(&text.replace("LOG", home.path("log").to_str().expect("text")))
}

#[tokio::test]
async fn a_rejected_file_is_compiled_once_however_often_it_is_inspected() {
    let home = home(&[]);
    let ace = start(&home, logging(&home, "echo asked >> LOG; exit 1")).await;
    assert_eq!(log(&home).len(), 1);
    let file = home.path("plugins/stub_policy.wasm");
    let bytes = std::fs::read(&file).expect("there");
    for _ in 0..3 {
        // The same content in a new file.
        let new = home.file("new", &bytes);
        std::fs::File::options()
            .append(true)
            .open(&new)
            .and_then(|f| f.set_modified(std::time::UNIX_EPOCH))
            .expect("ours");
        std::fs::rename(&new, &file).expect("in place");
        ace.reload().await.expect("reloaded");
    }
    assert!(reason(&ace, "stub_policy").contains("exit status: 1"));
    assert_eq!(log(&home).len(), 1, "the content is known");
    home.file("plugins/stub_policy.wasm", [bytes, b"\0\x02\x01a".to_vec()].concat());
    ace.reload().await.expect("reloaded");
    assert_eq!(log(&home).len(), 2, "another content is not");
}

#[tokio::test]
async fn compilers_take_turns() {
    let home = home(&[]);
    configure(&home, &format!("{QUICK}processes = 1\n"));
    let bytes = std::fs::read(home.path("plugins/stub_policy.wasm")).expect("there");
    for n in 0..5_u8 {
        home.file(&format!("plugins/p{n}.wasm"), [&bytes[..], b"\0\x03\x01a", &[n]].concat());
    }
    start(&home, logging(&home, "echo begins >> LOG; sleep 0.05; echo ends >> LOG; exit 1")).await;
    assert_eq!(log(&home), ["begins", "ends"].repeat(6));
}

/// An endless file and one compiler process: other files wait only for a moment, and the endless one is cut in the end.
#[tokio::test]
async fn a_slow_file_does_not_delay_others() {
    let home = home(&[]);
    configure(&home, "[compiler]\nprocesses = 1\ntimeout = '60s'\n");
    // Reading by path does not move the descriptor. A slow file is rejected when it has its next turn.
    let compiler = r#"
        if grep -q slow-file /proc/self/fd/0; then
            echo slow >> LOG
            test $(grep -c slow LOG) -gt 1 && exit 7
            exec sleep 1000
        fi
        exec ACE "$0""#;
    let compiler = compiler.replace("ACE", env!("CARGO_BIN_EXE_ace"));
    let ace = start(&home, logging(&home, &compiler)).await;
    let valid = std::fs::read(home.path("plugins/stub_policy.wasm")).expect("there");
    let custom = |text: &str| [&valid[..], &[0, text.len() as u8 + 2, 1, b'a'], text.as_bytes()].concat();
    home.file("plugins/slow.wasm", custom("slow-file"));
    ace.reload_ready().await.expect("reloaded");
    wait_for("the slow file's turn", || log(&home).contains(&"slow".to_owned()).then_some(()));
    home.file("plugins/good.wasm", custom("good"));
    let since = Instant::now();
    loop {
        ace.reload_ready().await.expect("reloaded");
        if ace.registry().plugins.get("good").is_some_and(|good| good.state == PluginState::Active) {
            break;
        }
        // The file before it has a turn of five seconds, and would take sixty.
        assert!(since.elapsed() < Duration::from_secs(30), "{:?}", log(&home));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ace.reload().await.expect("reloaded");
    assert!(reason(&ace, "slow").contains("exit status: 7"), "{}", reason(&ace, "slow"));
    assert_eq!(log(&home).len(), 2, "it had two turns");
}

#[tokio::test]
async fn the_failure_of_a_compiler_is_the_reason() {
    let cases = [
        (script("exec sleep 100"), "took longer than 1s (compiler.timeout)"),
        (script("exec 2>&-; exec sleep 100"), "took longer than 1s (compiler.timeout)"),
        (script("kill -SEGV $$"), "ended with signal: 11"),
        (script("kill -XCPU $$"), "more than 2s of processor time (compiler.cpu-time)"),
        (script("kill -XFSZ $$"), "longer than 256MiB (compiler.code-bytes)"),
        (script("echo 'what I\tsay' >&2; exit 3"), "exit status: 3: what I say"),
        (script("head -c 5000000 /dev/zero | tr '\\0' y >&2; exit 3"), "exit status: 3: yyy"),
        (script("echo nonsense"), "gave no valid answer"),
        (script("true"), "gave no valid answer"),
        (script("test -z \"$HOME$ACE_CONFIG\" && exit 4"), "exit status: 4"),
        (Compile::Command { program: "/nowhere".into(), arguments: Vec::new() }, "/nowhere cannot be started"),
    ];
    let home = home(&[]);
    configure(&home, &format!("{QUICK}timeout = '1s'\n"));
    for (compile, words) in cases {
        let ace = start(&home, compile.clone()).await;
        says_one_of(&reason(&ace, "stub_policy"), &[words]);
        assert!(reason(&ace, "stub_policy").len() < 5_000, "{compile:?}");
    }
}

#[tokio::test]
async fn code_that_is_too_long_is_rejected() {
    let home = home(&[("long", crafted::large_data(2 << 20)), ("longer", crafted::large_data(8 << 20))]);
    configure(&home, "[compiler]\ncode-bytes = '1MiB'\n");
    let ace = start(&home, by_ace()).await;
    for name in ["long", "longer"] {
        says_one_of(&reason(&ace, name), &["its machine code is longer than 1MiB (compiler.code-bytes)"]);
    }
}

#[test]
fn an_interrupt_on_a_terminal_does_not_reach_the_compiler() {
    let (mut ace, child) = compiling(&home(&[]));
    // A terminal sends it to the whole process group of the host.
    let group = |id: u32| proc(id, "stat").rsplit_once(") ").map(|(_, rest)| rest.split(' ').nth(2).map(str::to_owned));
    assert_ne!(group(child), group(ace.id()));
    ace.kill().expect("it runs");
    ace.wait().expect("it has ended");
}
