//! Checks of the pages and of the program's texts: plain wording, figures that match the code, working links, code that a test compiles
//! or runs, and pages of at most 500 lines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Wording that was rewritten, and must not come back into pages and texts of the program.
const BANNED: [&str; 53] = [
    " anew",
    " began ",
    " is no match",
    " lest ",
    " mend ",
    " mend:",
    " once more",
    " sound ",
    " whom ",
    "asked in vain",
    "asks nobody",
    "at the latest",
    "but for ",
    "cannot serve",
    "does not serve any more",
    "for whoever",
    "for want of",
    "for who ",
    "given up",
    "gives up",
    "goes on in an earlier",
    "hand in ",
    "handed in",
    "handing in",
    "has a say",
    "has not the",
    "in vain",
    "is begun",
    "is no plugin",
    "is no scope",
    "is no setting",
    "is no state",
    "is none of",
    "it is no ",
    "laid over",
    "makes no sense",
    "nothing was begun",
    "put off",
    "stays behind",
    "taken up",
    "to be tried",
    "to its end",
    "to who ",
    "told once",
    "under way",
    "was begun",
    "went on",
    "what became of",
    "what becomes of",
    "what came of",
    "what waits",
    "writes down",
    "written down",
];

/// Figures in pages that a constant of the code defines: the page, its text, and the constant.
const FIGURES: [(&str, &str, &str); 24] = [
    ("serving.md", "at most 120 |", "const WAIT_MAX_S: u64 = 120;"),
    ("serving.md", "`limit` (50, at most 500;", "const PAGE: usize = 50;"),
    ("serving.md", "`limit` (50, at most 500;", "const PAGE_MAX: usize = 500;"),
    ("serving.md", "`limit` (100, at most 500;", "const PAGE: usize = 100;"),
    ("serving.md", "After ten consecutive failures", "const FAILURES_MAX: u32 = 10;"),
    ("serving.md", "to at most an hour", "const PAUSE_MAX: Duration = Duration::from_secs(3_600);"),
    ("serving.md", "A start waits up to 10 seconds", "const LOCK_TIMEOUT: Duration = Duration::from_secs(10);"),
    ("production.md", "waits up to 10 seconds", "const LOCK_TIMEOUT: Duration = Duration::from_secs(10);"),
    ("cli.md", "(default 50)", "const LISTED: u64 = 50;"),
    ("operating.md", "at most 1,000 bytes", "const TEXT_BYTES_MAX: usize = 1_000;"),
    ("operating.md", "limited to 256 KiB", "const REPORT_BYTES_MAX: usize = 256 << 10;"),
    ("operating.md", "the latest 50\nentries", "const LINES_MAX: usize = 50;"),
    ("operating.md", "the latest 50\nentries", "const HISTORY_MAX: usize = 50;"),
    ("operating.md", "compiling for\nfive seconds", "const FIRST_SLICE: Duration = Duration::from_secs(5);"),
    ("operating.md", "128 MiB for a component", "const COMPONENT_BYTES_MAX: u64 = 128 * 1024 * 1024;"),
    ("operating.md", "1 MiB for a template", "const TEMPLATE_BYTES_MAX: u64 = 1 << 20;"),
    ("operating.md", "at most 60 s apart", "const PROBE_PAUSE_MAX: Duration = Duration::from_secs(60);"),
    ("operating.md", "up to a minute,\nand is then sent", "const PAUSE_MAX_MS: i64 = 60_000;"),
    ("operating.md", "for a moment (50 ms)", "const STILL: Duration = Duration::from_millis(50);"),
    ("operating.md", "at most 4,096 links", "const LINKS_MAX: usize = 4_096;"),
    ("plugins.md", "1,000 handles", "const HANDLES_MAX: usize = 1_000;"),
    ("templates.md", "at most 1 MiB", "const TEMPLATE_BYTES_MAX: u64 = 1 << 20;"),
    ("templates.md", "of up to 16 MiB each", "const CATALOG_BYTES_MAX: u64 = 16 << 20;"),
    ("configuration.md", "One `.po` file may have 16 MiB", "const CATALOG_BYTES_MAX: u64 = 16 << 20;"),
];

/// Info strings of shell blocks that a test runs, by page (`tests/e2e/documents.rs`, `tests/e2e/author.rs`). `make` blocks contain targets
/// of the Makefile, which CI runs; `by hand` blocks are sketches with file names of the reader's own.
const SHELL: [(&str, &[&str]); 7] = [
    ("README.md", &["make", "init", "demo"]),
    ("docs/cli.md", &["init", "demo"]),
    ("docs/serving.md", &["serve", "request", "token"]),
    ("docs/authoring.md", &["tutorial", "by hand"]),
    ("docs/templates.md", &["import", "demo", "look"]),
    ("docs/plugins.md", &["build"]),
    ("docs/tutorial.md", &["tutorial", "serve", "batch", "opt-out", "plugin", "failed"]),
];

/// Info strings of Rust blocks, by page. `rust` and `no_run` are doctests; `tests/e2e/moving.rs` builds the others.
const RUST: [(&str, &[&str]); 3] = [
    ("docs/embedding.md", &["rust", "rust,no_run"]),
    ("docs/moving-from-edx-ace.md", &["rust after-policy", "rust after-channel"]),
    ("docs/plugins.md", &["rust"]),
];

fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().find(|folder| folder.join("wit").is_dir());
    root.expect("the package is inside the repository").to_owned()
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of ours") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
}

/// Every page, by its path in the repository.
fn pages() -> BTreeMap<String, String> {
    let root = repository();
    let mut found = Vec::new();
    files(&root.join("docs"), "md", &mut found);
    for page in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "host/ARCHITECTURE.md"] {
        found.push(root.join(page));
    }
    for folder in ["plugins", "tests"] {
        files(&root.join(folder), "md", &mut found);
    }
    // Without the pages of packages that npm and pip install beside examples.
    found
        .retain(|page| !page.iter().any(|part| ["node_modules", ".venv", "target"].iter().any(|other| part == *other)));
    let name = |path: &Path| path.strip_prefix(&root).expect("inside").display().to_string();
    found.iter().map(|path| (name(path), fs::read_to_string(path).expect("a page of ours"))).collect()
}

/// The code of the host's crates, without tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&repository().join("host"), "rs", &mut found);
    let is_a_test = |file: &Path| {
        file.ends_with("tests.rs")
            || file.iter().any(|part| ["tests", "benches", "examples"].iter().any(|t| part == *t))
    };
    found.retain(|file| !is_a_test(file));
    let without_tests = |text: String| text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    found.into_iter().map(|file| (file.clone(), without_tests(fs::read_to_string(file).expect("a source")))).collect()
}

/// The texts of a source: its literals and, if it becomes help or a description, its documentation.
fn texts(file: &Path, code: &str) -> String {
    let is_shown = ["cli/src/commands", "server/src/http/"].iter().any(|shown| file.to_string_lossy().contains(shown));
    let mut found = String::new();
    for line in code.lines() {
        let line = line.trim_start();
        match line.strip_prefix("//") {
            Some(comment) if is_shown && comment.starts_with('/') => found.push_str(&comment[1..]),
            Some(_) => {}
            None => line.split('"').skip(1).step_by(2).for_each(|literal| found.push_str(literal)),
        }
        found.push('\n');
    }
    found
}

#[test]
fn no_banned_wording_comes_back() {
    let mut wrong = Vec::new();
    let sources = sources().into_iter().map(|(file, code)| (file.display().to_string(), texts(&file, &code)));
    for (file, text) in pages().into_iter().filter(|(page, _)| page != "docs/wit.md").chain(sources) {
        for (number, line) in text.lines().enumerate() {
            let line = format!(" {} ", line.to_lowercase());
            let found = BANNED.iter().filter(|phrase| {
                // "There is no plugin …" is plain English.
                line.match_indices(**phrase).any(|(at, _)| !line[..at].ends_with("there "))
            });
            wrong.extend(found.map(|phrase| format!("{file}:{}: {phrase:?}", number + 1)));
        }
    }
    assert!(wrong.is_empty(), "say it in plain words:\n{}", wrong.join("\n"));
}

#[test]
fn figures_are_those_of_the_code() {
    let (pages, sources) = (pages(), sources());
    for (page, words, constant) in FIGURES {
        assert!(pages[&format!("docs/{page}")].contains(words), "docs/{page} does not say {words:?}");
        assert!(sources.iter().any(|(_, code)| code.contains(constant)), "{constant} changed; docs/{page}: {words:?}");
    }
}

/// The anchor that GitHub generates for a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

/// docs/wit.md is generated, and CHANGELOG.md grows with each release.
#[test]
fn pages_are_not_too_long() {
    let is_exempt = |page: &str| ["docs/wit.md", "CHANGELOG.md"].contains(&page);
    let pages = pages();
    let long: Vec<&String> = pages
        .iter()
        .filter(|(page, text)| !is_exempt(page) && text.lines().count() > 500)
        .map(|(page, _)| page)
        .collect();
    assert!(long.is_empty(), "split these pages by topic: {long:?}");
}

#[test]
fn links_lead_somewhere() {
    let (root, pages) = (repository(), pages());
    let mut wrong = Vec::new();
    for (page, text) in &pages {
        let folder = Path::new(page).parent().expect("a folder");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.contains([' ', '\n'])) {
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { root.join(page) } else { root.join(folder).join(file) };
            let has = |heading: &str| {
                let text = fs::read_to_string(&target).unwrap_or_default();
                let is_here = |line: &str| anchor(line.trim_start_matches(['#', ' '])) == heading;
                text.contains(&format!("id=\"{heading}\""))
                    || text.lines().any(|line| line.starts_with('#') && is_here(line))
            };
            if !target.exists() || heading.is_some_and(|heading| !has(heading)) {
                wrong.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "these links lead nowhere:\n{}", wrong.join("\n"));
}

/// The info strings of a page's code blocks in one language.
fn info_strings<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let blocks = page.split("\n```").skip(1).step_by(2).map(|block| block.lines().next().unwrap_or_default());
    blocks.filter(|info| info.split([' ', ',']).next() == Some(language)).collect()
}

#[test]
fn code_in_pages_is_compiled_or_run() {
    let pages = pages();
    for (page, known) in SHELL {
        let known: Vec<String> = known.iter().map(|kind| format!("sh {kind}")).collect();
        let blocks = info_strings(&pages[page], "sh");
        let unknown: Vec<&str> = blocks.into_iter().filter(|info| !known.iter().any(|k| k == info)).collect();
        assert!(unknown.is_empty(), "{page}: no test runs {unknown:?}");
    }
    for (page, text) in &pages {
        let known = RUST.iter().find(|(one, _)| one == page).map_or(&[][..], |(_, known)| *known);
        let unknown: Vec<&str> = info_strings(text, "rust").into_iter().filter(|info| !known.contains(info)).collect();
        assert!(unknown.is_empty(), "{page}: nothing compiles {unknown:?}");
    }
    let targets = fs::read_to_string(repository().join("Makefile")).expect("the Makefile");
    let commands = pages["README.md"].split("```sh make\n").skip(1).filter_map(|rest| rest.split("```").next());
    for line in commands.flat_map(str::lines) {
        let target = line.split_whitespace().nth(1).expect("make TARGET");
        assert!(targets.contains(&format!("\n{target}:")), "the Makefile has no target {target}");
    }
}
