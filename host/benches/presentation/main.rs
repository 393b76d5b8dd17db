//! `cargo bench -p ace-cli --bench presentation`: CPU microseconds of the presentation step for one message, the reference mail of
//! five files and 8 KB of HTML: templates alone, with languages, with styles put into the elements; against Django and
//! Jinja2 in the same run. Writes target/bench/presentation.json. `-- memory 100000` renders so often (else a million times)
//! and tells what memory came of it, alone.

#[path = "../ace/measure.rs"]
#[expect(dead_code, reason = "the other bench uses the rest of it")]
mod measure;

use std::path::{Path, PathBuf};
use std::process::Command;

use ace::config;
use ace::internals::presentation::{Presentation, Subject};
use ace::message::{Message, TemplateFile};
use serde_json::Value;

use measure::{Summary, child, cpu_us};

/// The same allocator as the program, so that the figures are the program's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Messages of one round.
const ROUND: usize = 2_000;
/// Messages of one round where each takes its time.
const SLOW_ROUND: usize = 200;
/// Renders over which memory must stay where it is.
const MANY: usize = 1_000_000;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace").to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut summary = Summary::open(&root.join("target/bench/presentation.json"), false);
    let messages = messages(&root);
    let benches = root.join("host/benches");
    let translated = benches.join("presentation/translated");
    let inline = |inline_css| config::Presentation { inline_css, ..config::Presentation::default() };
    let plain = Presentation::load(&[benches.join("templates")], &inline(false));
    let languages = Presentation::load(std::slice::from_ref(&translated), &inline(false));
    let styled = |overlays: &[&str]| -> Vec<PathBuf> {
        let overlays = overlays.iter().map(|overlay| benches.join("presentation").join(overlay));
        overlays.chain([translated.clone()]).collect()
    };
    let cached = Presentation::load(&styled(&["styled"]), &inline(true));
    let unseen = Presentation::load(&styled(&["unseen", "styled"]), &inline(true));

    if let Some(times) = memory_alone() {
        return memory(&cached, &messages, times, &mut summary);
    }
    let measured = |presentation: &Presentation, round| {
        runtime.block_on(cpu_us(round, async |i| {
            std::hint::black_box(render(presentation, &messages[i % messages.len()]));
        }))
    };
    let peers = peers(&root);
    let of = |name: &str| peers[name].as_f64().unwrap_or_else(|| panic!("{name} in {peers}"));
    let tera = measured(&plain, ROUND);
    let translated = measured(&languages, ROUND);
    let whole = measured(&cached, ROUND);
    let fresh = {
        // Every mail is of a shape that has not been seen.
        let mut run = 0;
        runtime.block_on(cpu_us(SLOW_ROUND, async |i| {
            let mut message = messages[i % messages.len()].clone();
            run += 1;
            message.context.insert("run", run);
            std::hint::black_box(render(&unseen, &message));
        }))
    };
    summary.add("templates_us", tera, "us", "Tera alone, no translation, no inlining");
    summary.add("languages_us", translated, "us", "trans and blocktrans, half of the messages in Spanish");
    summary.add("inlined_us", whole, "us", "the same, and styles put into the elements: a known shape");
    summary.add("inlined_unseen_us", fresh, "us", "the same, each mail of an unseen shape");
    summary.add("jinja2_us", of("jinja2"), "us", "no translation");
    summary.add("django_us", of("django"), "us", "edx-ace's renderer, half of the messages in Spanish");
    summary.add("templates_against_jinja2", of("jinja2") / tera, "x", "");
    summary.add("languages_against_django", of("django") / translated, "x", "aim >= 20");
    summary.add("inlined_against_django", of("django") / whole, "x", "Django inlines nothing");
    memory(&cached, &messages, MANY, &mut summary);
    summary.write();
}

/// How many renders are asked for, where it is memory alone that is looked at.
fn memory_alone() -> Option<usize> {
    let mut words = std::env::args().skip_while(|word| word != "memory").skip(1);
    let is_asked = std::env::args().any(|word| word == "memory");
    is_asked.then(|| words.find_map(|word| word.parse().ok()).unwrap_or(MANY))
}

fn messages(root: &Path) -> Vec<Message> {
    let bench = root.join("target/bench");
    std::fs::create_dir_all(&bench).expect("a folder for the figures");
    let file = bench.join("messages.ndjson");
    let script = root.join("host/benches/peers/contexts.py");
    child(root.join("target/venv/bin/python"), &[script.as_os_str(), file.as_os_str()]);
    let text = std::fs::read_to_string(&file).expect("just written");
    text.lines().map(|line| Message::from_json(line.as_bytes()).expect("a message")).collect()
}

fn render(presentation: &Presentation, message: &Message) -> usize {
    let files = ["from_name.txt", "subject.txt", "body.html", "head.html", "body.txt"].map(TemplateFile::required);
    let subject = Subject {
        channel: "django_email",
        channel_type: "email",
        files: &files,
        action_links: &[],
        tracker_image_sources: &[],
    };
    let rendered = presentation.render(message, &subject).expect("it renders");
    rendered.files.iter().map(|file| file.text.len()).sum()
}

/// What Django and Jinja2 take, in this run and on this machine.
fn peers(root: &Path) -> Value {
    let script = root.join("host/benches/peers/render.py");
    let arguments = [script, root.join("target/bench/messages.ndjson"), root.join("host/benches/templates")];
    let output =
        Command::new(root.join("target/venv/bin/python")).args(arguments).arg("400").output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("figures")
}

/// What the process holds in memory before and after many renders.
fn memory(presentation: &Presentation, messages: &[Message], times: usize, summary: &mut Summary) {
    let run = |times: usize| {
        (0..times).for_each(|i| {
            std::hint::black_box(render(presentation, &messages[i % messages.len()]));
        })
    };
    run(times / 50);
    let before = resident_mib();
    run(times);
    let grown = resident_mib() - before;
    summary.add("grown_over_a_million_renders_mib", grown, "MiB", &format!("{times} renders, from {before:.0} MiB"));
}

fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: f64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096.0 / (1 << 20) as f64
}
