//! The house's rules, as a test: who may import what, and where each dependency lives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Who may import what. A new line here is a design decision.
const MAY_IMPORT: [(&str, &[&str]); 30] = [
    ("message", &[]),
    // Files are written by those who know what is in them.
    ("files", &[]),
    ("config", &["files", "message"]),
    ("retry", &["config", "message"]),
    ("tls", &[]),
    ("mailer", &["config", "files", "message", "tls"]),
    ("sqlite", &["files"]),
    ("keyvalue", &["config", "files", "message", "sqlite"]),
    ("queue", &["config", "files", "message", "sqlite"]),
    ("tokens", &["files", "message"]),
    ("monitoring", &["config", "message", "queue", "tls"]),
    ("tasks", &["monitoring"]),
    ("presentation", &["config", "files", "message", "monitoring"]),
    // The pipeline asks it, the imports tell it: what both know, and neither of the other.
    ("destination", &["config", "message", "monitoring", "retry"]),
    ("plugin", &["config", "destination", "files", "keyvalue", "mailer", "message", "monitoring", "tasks", "tls"]),
    ("policy", &["message", "monitoring", "plugin"]),
    ("channel", &["config", "message", "monitoring", "plugin"]),
    ("delivery", &["channel", "message", "monitoring", "plugin"]),
    (
        "pipeline",
        &[
            "channel",
            "config",
            "delivery",
            "destination",
            "message",
            "monitoring",
            "plugin",
            "policy",
            "presentation",
            "retry",
        ],
    ),
    ("dispatch", &["channel", "message", "monitoring", "pipeline", "tasks"]),
    ("watch", &["engine", "files", "tasks"]),
    (
        "engine",
        &[
            "channel",
            "config",
            "delivery",
            "destination",
            "dispatch",
            "keyvalue",
            "mailer",
            "message",
            "monitoring",
            "pipeline",
            "plugin",
            "policy",
            "presentation",
            "retry",
            "tasks",
        ],
    ),
    ("intake", &["engine", "message", "plugin", "queue"]),
    ("events", &["config", "destination", "message", "queue", "tls"]),
    ("worker", &["destination", "events", "message", "monitoring", "pipeline", "queue", "tasks"]),
    (
        "http",
        &[
            "config",
            "destination",
            "engine",
            "intake",
            "events",
            "keyvalue",
            "message",
            "monitoring",
            "pipeline",
            "plugin",
            "queue",
            "tasks",
            "tokens",
            "worker",
        ],
    ),
    (
        "app",
        &[
            "config",
            "engine",
            "events",
            "http",
            "intake",
            "monitoring",
            "plugin",
            "queue",
            "tasks",
            "tls",
            "tokens",
            "watch",
            "worker",
        ],
    ),
    // The author's tools have one plugin at a time, and no engine.
    ("kit", &["config", "files", "keyvalue", "mailer", "message", "plugin", "tasks"]),
    // The command line talks to the application; what it prints are the values it is given.
    (
        "cli",
        &[
            "app",
            "config",
            "dispatch",
            "engine",
            "files",
            "kit",
            "message",
            "monitoring",
            "plugin",
            "tasks",
            "tls",
            "tokens",
            "watch",
        ],
    ),
    ("main", &["cli"]),
];

/// The one home of each dependency.
const HOMES: [(&str, &[&str]); 28] = [
    ("wasmtime", &["plugin"]),
    ("wasmtime_wasi", &["plugin"]),
    ("wasmparser", &["plugin"]),
    ("rayon", &["plugin"]),
    ("minisign", &["plugin"]),
    ("include_dir", &["kit"]),
    ("cap_std", &["plugin"]),
    ("tera", &["presentation"]),
    ("icu_calendar", &["presentation"]),
    ("icu_datetime", &["presentation"]),
    ("icu_decimal", &["presentation"]),
    ("css_inline", &["presentation"]),
    ("html2text", &["presentation"]),
    ("rusqlite", &["keyvalue", "queue", "sqlite"]),
    ("lettre", &["mailer", "config"]),
    ("rustls_native_certs", &["tls"]),
    ("mail_builder", &["mailer"]),
    ("clap", &["cli"]),
    ("axum", &["http"]),
    ("utoipa", &["http"]),
    ("metrics", &["monitoring"]),
    ("opentelemetry", &["monitoring"]),
    ("opentelemetry_sdk", &["monitoring"]),
    ("opentelemetry_otlp", &["monitoring"]),
    ("tracing_opentelemetry", &["monitoring"]),
    ("metrics_exporter_prometheus", &["monitoring"]),
    ("toml", &["config"]),
    ("toml_edit", &["config", "kit"]),
];

fn sources() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of ours") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source of ours");
                found.insert(path.strip_prefix(&root).expect("under the root").to_owned(), text);
            }
        }
    }
    found
}

/// The top-level module a file belongs to.
fn module(file: &Path) -> String {
    let first = file.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The code of a file, without its tests and comments.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// What follows each `crate::`, braces taken apart.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, marker) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + marker.len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(',').collect(),
            None => vec![rest],
        };
        for name in names {
            let word: String = name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !word.is_empty() {
                found.insert(word);
            }
        }
    }
    found
}

#[test]
fn modules_import_only_what_the_design_allows() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        MAY_IMPORT.iter().map(|(module, others)| (*module, others.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let module = module(&file);
        if module == "lib" {
            continue;
        }
        let Some(allowed) = allowed.get(module.as_str()) else {
            wrong.push(format!("{}: the module {module} is not in the table", file.display()));
            continue;
        };
        for import in imports(&code(&text)) {
            // Re-exports at the root come from engine, config and message.
            let import = match import.as_str() {
                "Ace" | "StartError" => "engine",
                "Config" => "config",
                other => other,
            };
            if import != module && !allowed.contains(import) {
                wrong.push(format!("{}: {module} must not import {import}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_dependency_has_one_home() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let module = module(&file);
        let code = code(&text);
        for (dependency, homes) in HOMES {
            let used = code.match_indices(&format!("{dependency}::")).any(|(at, _)| {
                !code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            if used && !homes.contains(&module.as_str()) {
                wrong.push(format!("{}: {dependency} belongs in {}", file.display(), homes.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_metric_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).expect("a file of ours");
    let (code, page) = (code(&read("src/monitoring.rs")), read("../../docs/serving.md"));
    let names: Vec<&str> = code.split('"').filter(|text| text.starts_with("ace_") && !text.contains(' ')).collect();
    assert!(names.len() > 20, "{names:?}");
    let missing: Vec<&&str> = names.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/serving.md does not name {missing:?}");
}

/// A table of departures that names a test nobody runs shows nothing.
#[test]
fn departures_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/departures.md")).expect("a page of ours");
    let (mut names, mut wrong, mut before) = (0, Vec::new(), String::new());
    for quoted in page.split('`').skip(1).step_by(2) {
        let (file, function) =
            quoted.split_once(": ").map_or((quoted, None), |(file, function)| (file, Some(function)));
        let is_file =
            file.ends_with(".rs") && ["src/", "tests/", "plugins/"].iter().any(|start| file.starts_with(start));
        if !is_file && file != "…" {
            continue;
        }
        if is_file {
            before = if file.starts_with("src/") { format!("host/ace/{file}") } else { file.to_owned() };
        }
        names += 1;
        let text = std::fs::read_to_string(root.join(&before)).unwrap_or_default();
        let is_there = |name: &str| {
            let start = text.find(&format!("fn {name}(")).map(|at| &text[..at]);
            start.is_some_and(|above| above.rfind("test]").is_some_and(|at| !above[at..].contains("\n\n")))
        };
        if !function.map_or(text.contains("test]"), is_there) {
            wrong.push(quoted);
        }
    }
    assert!(names > 50, "{names} names were found");
    assert!(wrong.is_empty(), "docs/departures.md names tests that do not exist: {wrong:?}");
    assert!(!page.contains("no test yet"));
}

#[test]
fn only_the_command_line_prints() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let prints = ["println!", "eprintln!", "print!(", "dbg!"].iter().any(|p| code(&text).contains(p));
        if prints && module(&file) != "cli" {
            wrong.push(file.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "these print: {}", wrong.join(", "));
}

/// A crafted plugin file takes all memory or the whole stack of what parses or compiles it: that is done in one file, which the
/// program runs in a process of its own.
#[test]
fn one_file_parses_and_compiles_plugins() {
    let is_a_test = |file: &Path| file.ends_with("tests.rs") || file.iter().any(|part| part == "tests");
    let does = [
        "wasmparser::",
        ".precompile_component",
        ".precompile_module",
        "::from_binary(",
        "Component::new(",
        "Component::from_file(",
        "Module::",
    ];
    for (file, text) in sources().iter().filter(|(file, _)| !file.ends_with("plugin/reading.rs") && !is_a_test(file)) {
        let found: Vec<&str> = does.iter().filter(|word| code(text).contains(**word)).copied().collect();
        assert!(found.is_empty(), "{}: {found:?} belongs in plugin/reading.rs", file.display());
    }
}

/// Every configuration of the program names the program as its own compiler.
#[test]
fn the_command_line_reads_configurations_in_one_place() {
    for (file, text) in sources().iter().filter(|(file, _)| module(file) == "cli" && !file.ends_with("cli.rs")) {
        let reads = ["Config::load(", "Config::without_file("];
        assert!(!reads.iter().any(|word| code(text).contains(word)), "{}: cli.rs reads configurations", file.display());
    }
}

/// A demangler can be made to take all memory by a crafted name, and a reader of debug sections reads what a guest wrote.
#[test]
fn wasmtime_is_built_without_decoders_of_names() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).expect("the manifest");
    for package in ["wasmtime", "wasmtime-wasi", "wasmtime-wasi-http"] {
        let line = manifest.lines().find(|line| line.starts_with(&format!("{package} = ")));
        let line = line.unwrap_or_else(|| panic!("{package} is a dependency"));
        assert!(line.contains("default-features = false"), "{package}: its default features have them: {line}");
        let found = ["demangle", "addr2line"].into_iter().find(|feature| line.contains(feature));
        assert_eq!(found, None, "{package}: {line}");
    }
}

/// wasmtime's errors quote names of a guest's choice, and its formatting of a stack decodes them, which may take all memory. Where
/// wasmtime is used, an error called `e`, `err` or `error` may be one of its own; others are called by what they are.
#[test]
fn only_one_place_formats_the_errors_of_wasmtime() {
    const HOME: &str = "plugin/errors.rs";
    let names = ["e", "err", "error"];
    let formats = names.iter().flat_map(|name| {
        [
            format!("{{{name}}}"),
            format!("{{{name}:"),
            format!("%{name},"),
            format!("?{name},"),
            format!("{name}.to_string()"),
        ]
    });
    let formats: Vec<String> = formats.collect();
    let is_word = |code: &str, at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let code = code(&text);
        if file == Path::new(HOME) || !code.contains("wasmtime") {
            continue;
        }
        for word in ["WasmBacktrace>", "WasmBacktrace::", ".root_cause()", ".backtrace()"] {
            if code.contains(word) {
                wrong.push(format!("{}: {word} belongs in {HOME}", file.display()));
            }
        }
        for format in &formats {
            if code.match_indices(format).any(|(at, _)| is_word(&code, at)) {
                wrong.push(format!("{}: {format} may format an error of wasmtime: use {HOME}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
