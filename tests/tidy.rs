//! Tests of the project's rules: which modules may import which, and where each dependency is used.

mod documents;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which modules may import which of the same crate. A new line here is a design decision, and an unused line is an error. Between
/// crates, everything public may be used.
const MAY_IMPORT: [(&str, &[Row]); 3] = [("ace", &ACE), ("server", &SERVER), ("cli", &CLI)];

/// A module, and the modules it may import.
type Row = (&'static str, &'static [&'static str]);

const ACE: [Row; 19] = [
    // What the other crates of the workspace may use beyond the public API.
    (
        "internals",
        &[
            "credentials",
            "destination",
            "engine",
            "mailer",
            "monitoring",
            "pipeline",
            "plugin",
            "presentation",
            "tasks",
            "tls",
        ],
    ),
    ("message", &[]),
    ("config", &["message", "suppression"]),
    ("retry", &["config"]),
    ("suppression", &[]),
    ("tls", &[]),
    // Below the mailer and plugins, which both send with credentials.
    ("credentials", &["config", "message", "tasks", "tls"]),
    ("mailer", &["config", "credentials", "message", "tls"]),
    ("monitoring", &["config", "message", "tls"]),
    ("tasks", &["monitoring"]),
    ("presentation", &["config", "message"]),
    // The pipeline queries it and the imports report to it, without knowing each other.
    ("destination", &["config", "message", "monitoring", "retry"]),
    ("plugin", &["config", "credentials", "destination", "mailer", "message", "monitoring", "tasks", "tls"]),
    ("policy", &["message", "monitoring", "plugin"]),
    ("channel", &["config", "message", "plugin"]),
    ("pipeline", &["channel", "config", "destination", "message", "monitoring", "policy", "presentation", "retry"]),
    ("dispatch", &["channel", "message", "monitoring", "pipeline", "tasks"]),
    ("watch", &["engine", "tasks"]),
    (
        "engine",
        &[
            "channel",
            "config",
            "credentials",
            "destination",
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
];

const SERVER: [Row; 9] = [
    ("gauges", &[]),
    ("service", &[]),
    ("tokens", &[]),
    ("events", &[]),
    ("worker", &["events"]),
    ("intake", &["worker"]),
    ("feedback", &["events", "worker"]),
    ("http", &["gauges", "feedback", "intake", "events", "tokens", "worker"]),
    ("app", &["gauges", "events", "feedback", "http", "intake", "service", "tokens", "worker"]),
];

const CLI: [Row; 3] = [
    // The command line prints what the library returns.
    ("commands", &["kit", "shipped"]),
    // Data that build.rs embeds.
    ("shipped", &[]),
    // The tools for plugin authors use one plugin at a time, and no engine.
    ("kit", &[]),
];

/// The crates and modules that may use each dependency.
const HOMES: [(&str, &[&str]); 30] = [
    ("wasmtime", &["ace/plugin"]),
    ("wasmtime_wasi", &["ace/plugin"]),
    ("wasmparser", &["ace/plugin"]),
    ("rayon", &["ace/plugin"]),
    ("minisign", &["ace/plugin"]),
    ("include_dir", &["cli/kit"]),
    ("cap_std", &["ace/plugin"]),
    ("tera", &["ace/presentation"]),
    ("icu_calendar", &["ace/presentation"]),
    ("icu_datetime", &["ace/presentation"]),
    ("icu_decimal", &["ace/presentation"]),
    ("css_inline", &["ace/presentation"]),
    ("html2text", &["ace/presentation"]),
    ("lettre", &["ace/mailer"]),
    ("rustls_native_certs", &["ace/tls"]),
    ("mail_builder", &["ace/mailer"]),
    // A key is checked when the configuration is read.
    ("mail_auth", &["ace/config", "ace/mailer"]),
    ("psl", &["ace/config"]),
    ("clap", &["cli/commands"]),
    ("axum", &["server/http"]),
    ("utoipa", &["server/http"]),
    ("sd_notify", &["server/service"]),
    ("metrics", &["ace/monitoring", "server/gauges"]),
    ("opentelemetry", &["ace/monitoring"]),
    ("opentelemetry_sdk", &["ace/monitoring"]),
    ("opentelemetry_otlp", &["ace/monitoring"]),
    ("tracing_opentelemetry", &["ace/monitoring"]),
    ("metrics_exporter_prometheus", &["ace/monitoring"]),
    ("toml", &["ace/config"]),
    ("toml_edit", &["ace/config", "cli/kit"]),
];

/// The folder of the host's crates.
fn host() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The sources of the host's crates, by their path below its folder: `ace/src/plugin/loading/component_file.rs`.
fn sources() -> BTreeMap<PathBuf, String> {
    let root = host();
    let mut found = BTreeMap::new();
    let crates = std::fs::read_dir(&root).expect("the folder of the host").filter_map(Result::ok);
    let mut folders: Vec<PathBuf> = crates.map(|entry| entry.path().join("src")).filter(|src| src.is_dir()).collect();
    assert!(folders.len() > 3, "{folders:?}");
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

/// The crate and the top-level module that a file belongs to.
fn module_of(file: &Path) -> (String, String) {
    let mut names = file.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let (package, _src, module) = (names.next(), names.next(), names.next());
    let module = module.expect("a file below src");
    (package.expect("a crate"), module.trim_end_matches(".rs").to_owned())
}

/// The code of a file, without its tests and comments.
fn code(text: &str) -> String {
    const TESTS: &str = "#[cfg(test)]\nmod ";
    let mut parts = text.split(TESTS);
    let mut code = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let head = part.lines().next().unwrap_or_default();
        let end = if head.ends_with(';') { "\n" } else { "\n}\n" };
        code.push_str(part.split_once(end).map_or("", |(_, after)| after));
    }
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn code_is_all_of_a_file_except_its_tests() {
    let text = "use a;\n#[cfg(test)]\nmod tests;\n\n// b\nuse c;\n#[cfg(test)]\nmod more {\n    use d;\n}\nuse e;\n";
    assert_eq!(code(text).lines().filter(|line| !line.is_empty()).collect::<Vec<_>>(), ["use a;", "use c;", "use e;"]);
}

/// The names that follow `crate::`, including those in braces.
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

/// The allowed imports, by crate and module.
fn table() -> BTreeMap<&'static str, BTreeMap<&'static str, BTreeSet<&'static str>>> {
    let of = |(module, others): &Row| (*module, others.iter().copied().collect());
    MAY_IMPORT.iter().map(|(package, modules)| (*package, modules.iter().map(of).collect())).collect()
}

#[test]
fn modules_import_only_what_the_design_allows() {
    let allowed = table();
    let (mut unused, mut wrong) = (allowed.clone(), Vec::new());
    for (file, text) in sources() {
        let (package, module) = module_of(&file);
        let Some(allowed) = allowed.get(package.as_str()).filter(|_| module != "lib" && module != "main") else {
            continue;
        };
        let Some(allowed) = allowed.get(module.as_str()) else {
            wrong.push(format!("{}: the module {module} is not in the table", file.display()));
            continue;
        };
        let unused = unused.get_mut(package.as_str()).and_then(|modules| modules.get_mut(module.as_str()));
        let unused = unused.expect("a copy of the table");
        for import in imports(&code(&text)) {
            // Re-exports at the root of `ace` come from engine and config.
            let import = match import.as_str() {
                "Ace" | "StartError" => "engine",
                "Config" => "config",
                other => other,
            };
            unused.remove(import);
            if import != module && !allowed.contains(import) {
                wrong.push(format!("{}: {module} must not import {import}", file.display()));
            }
        }
    }
    for (package, modules) in unused {
        let edges = modules.iter().flat_map(|(module, others)| others.iter().map(move |other| (module, other)));
        wrong.extend(edges.map(|(module, other)| format!("{package}: {module} does not import {other}: take it out")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn dependencies_are_used_only_where_they_may_be() {
    let (mut wrong, mut unused) = (Vec::new(), BTreeMap::from(HOMES.map(|(name, homes)| (name, homes.to_vec()))));
    for (file, text) in sources() {
        let (package, module) = module_of(&file);
        let home = format!("{package}/{module}");
        let code = code(&text);
        for (dependency, homes) in HOMES {
            let used = code.match_indices(&format!("{dependency}::")).any(|(at, _)| {
                !code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            if used && !homes.contains(&home.as_str()) {
                wrong.push(format!("{}: {dependency} belongs in {}", file.display(), homes.join(", ")));
            } else if used && let Some(unused) = unused.get_mut(dependency) {
                unused.retain(|unused| *unused != home);
            }
        }
    }
    unused.retain(|_, homes| !homes.is_empty());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(unused.is_empty(), "not used there: {unused:?}");
}

#[test]
fn every_metric_is_documented() {
    let read = |file: &str| std::fs::read_to_string(host().join(file)).expect("a file of ours");
    let code = code(&read("ace/src/monitoring.rs")) + &code(&read("server/src/gauges.rs"));
    let page = read("../docs/serving.md");
    let names: Vec<&str> = code.split('"').filter(|text| text.starts_with("ace_") && !text.contains(' ')).collect();
    assert!(names.len() > 20, "{names:?}");
    let missing: Vec<&&str> = names.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/serving.md does not name {missing:?}");
}

/// A test that does not exist proves no departure.
#[test]
fn departures_name_tests_that_exist() {
    let root = host().join("..");
    let page = std::fs::read_to_string(root.join("docs/departures.md")).expect("a page of ours");
    let (mut names, mut wrong, mut before) = (0, Vec::new(), String::new());
    for quoted in page.split('`').skip(1).step_by(2) {
        let (file, function) =
            quoted.split_once(": ").map_or((quoted, None), |(file, function)| (file, Some(function)));
        let is_file = file.ends_with(".rs")
            && ["src/", "host/", "tests/", "plugins/"].iter().any(|start| file.starts_with(start));
        if !is_file && file != "…" {
            continue;
        }
        if is_file {
            let known = ["host/ace", "host/store"].map(|krate| format!("{krate}/{file}"));
            before = known.into_iter().find(|file| root.join(file).exists()).unwrap_or_else(|| file.to_owned());
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
        if prints && module_of(&file) != ("cli".to_owned(), "commands".to_owned()) {
            wrong.push(file.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "these print: {}", wrong.join(", "));
}

/// A crafted plugin file can use all memory or the whole stack of its parser or compiler, so both are in one file, which the program runs
/// in a separate process.
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
    for (file, text) in sources()
        .iter()
        .filter(|(file, _)| !file.ends_with("ace/src/plugin/loading/component_file.rs") && !is_a_test(file))
    {
        let found: Vec<&str> = does.iter().filter(|word| code(text).contains(**word)).copied().collect();
        assert!(found.is_empty(), "{}: {found:?} belongs in plugin/loading/component_file.rs", file.display());
    }
}

/// Every configuration of the program must name the program as its compiler.
#[test]
fn the_command_line_reads_configurations_in_one_place() {
    let is_elsewhere = |file: &Path| file.starts_with("cli/src") && !file.ends_with("cli/src/commands.rs");
    for (file, text) in sources().iter().filter(|(file, _)| is_elsewhere(file)) {
        let reads = ["Config::load(", "Config::without_file("];
        assert!(
            !reads.iter().any(|word| code(text).contains(word)),
            "{}: commands.rs reads configurations",
            file.display()
        );
    }
}

/// A crafted name can make a demangler use all memory, and a reader of debug sections reads data of the guest.
#[test]
fn wasmtime_is_built_without_decoders_of_names() {
    let read = |file: &str| std::fs::read_to_string(host().join(file)).expect("a manifest");
    let manifest = read("../Cargo.toml") + &read("ace/Cargo.toml");
    for package in ["wasmtime", "wasmtime-wasi", "wasmtime-wasi-http"] {
        let line = manifest.lines().find(|line| line.starts_with(&format!("{package} = ")));
        let line = line.unwrap_or_else(|| panic!("{package} is a dependency"));
        assert!(line.contains("default-features = false"), "{package}: its default features have them: {line}");
        let found = ["demangle", "addr2line"].into_iter().find(|feature| line.contains(feature));
        assert_eq!(found, None, "{package}: {line}");
    }
}

/// wasmtime's errors quote names that a guest chose, and formatting a stack decodes them, which can use all memory. In modules that use
/// wasmtime, an error called `e`, `err` or `error` may be one of wasmtime; other errors have other names.
#[test]
fn only_one_place_formats_the_errors_of_wasmtime() {
    const HOME: &str = "ace/src/plugin/runtime/errors.rs";
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
