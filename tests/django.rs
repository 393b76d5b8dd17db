//! Django itself said what each of these templates renders to (`tests/django/make.py`); imported, they must render to the
//! same, but for the cases that say what is given instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ace::config;
use ace::django::Weight;
use ace::message::{ActionLink, Message, TemplateFile};
use ace::presentation::{Presentation, Subject};
use serde_json::Value;

/// Where a case's main file stands.
const FOLDER: &str = "app/edx_ace/case/email/";
/// What Django's side has in its settings and in its message.
const SITE: &str = "https://courses.example.org";
const STATIC: &str = "https://static.example.org/app/";
const UUID: &str = "7a3c1d1e-5b0f-4c55-9d0e-1f0c8a6e2b01";

struct Case {
    name: String,
    language: Option<String>,
    main: String,
    context: serde_json::Map<String, Value>,
    files: BTreeMap<String, String>,
    /// What is known to be given instead of Django's text.
    ours: Option<String>,
    links: Vec<ActionLink>,
    trackers: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/django")
}

fn cases(text: &str) -> Vec<Case> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.split("\n=== ").map(|part| case(part.trim_start_matches("=== "))).collect()
}

fn case(part: &str) -> Case {
    let (head, mut body) = part.split_once('\n').expect("a head");
    let (name, options) = match head.strip_suffix(']').and_then(|head| head.rsplit_once(" [")) {
        Some((name, options)) => (name, options),
        None => (head, ""),
    };
    let main = options.split(' ').find(|option| option.contains('.')).unwrap_or("main.html").to_owned();
    let is_language = |option: &&str| !option.is_empty() && !option.contains('.') && *option != "differs";
    let language = options.split(' ').find(is_language).map(str::to_owned);
    let mut context = serde_json::Map::new();
    if let Some((json, rest)) = body.strip_prefix("@ ").and_then(|rest| rest.split_once('\n')) {
        let Value::Object(map) = with_dates(serde_json::from_str(json).expect("JSON")) else { panic!("a map") };
        (context, body) = (map, rest);
    }
    let mut files = BTreeMap::new();
    let mut file = format!("{FOLDER}{main}");
    let marked = format!("\n{body}");
    for (at, piece) in marked.split("\n--- ").enumerate() {
        let text = match at {
            0 => piece.strip_prefix('\n').unwrap_or(piece),
            _ => {
                let (name, text) = piece.split_once('\n').expect("a file");
                name.clone_into(&mut file);
                text
            }
        };
        files.insert(file.clone(), text.to_owned());
    }
    let ours = files.remove("ours");
    assert_eq!(ours.is_some(), options.split(' ').any(|option| option == "differs"), "{name}");
    let channel = context.remove("$channel").unwrap_or_default();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let listed = |name: &str| channel[name].as_array().cloned().unwrap_or_default();
    let link = |l: &Value| ActionLink { url: text(&l[0]), text: text(&l[1]), unsubscribe: l[2] == true };
    let links = listed("links").iter().map(link).collect();
    let trackers = listed("trackers").iter().map(text).collect();
    Case { name: name.to_owned(), language, main, context, files, ours, links, trackers }
}

fn with_dates(value: Value) -> Value {
    match value {
        Value::Object(map) if map.len() == 1 && map.contains_key("$date") => map["$date"].clone(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(key, value)| (key, with_dates(value))).collect()),
        Value::Array(list) => Value::Array(list.into_iter().map(with_dates).collect()),
        other => other,
    }
}

fn render(case: &Case) -> Result<String, String> {
    let import = ace::django::import(&case.files);
    if let Some(finding) = import.findings.iter().find(|finding| finding.weight == Weight::Left) {
        return Err(finding.to_string().replace(FOLDER, ""));
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in &import.files {
        let file = dir.path().join("templates").join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, text).expect("written");
    }
    let dirs = [dir.path().join("templates"), folder()];
    let settings = config::Presentation {
        base_url: Some(SITE.parse().expect("an address")),
        static_url: Some(STATIC.to_owned()),
        ..config::Presentation::default()
    };
    let presentation = Presentation::load(&dirs, &settings);
    let mut message = Message::new("app", "case", None);
    message.uuid = UUID.parse().expect("a UUID");
    message.context = case.context.clone();
    message.language = case.language.clone();
    let files = [TemplateFile::required(&case.main)];
    let subject = Subject {
        channel: "test",
        channel_type: "email",
        files: &files,
        action_links: &case.links,
        tracker_image_sources: &case.trackers,
    };
    let rendered = presentation.render(&message, &subject);
    let short = |text: &str| text.replace(&format!("{}/", dirs[0].display()), "").replace(FOLDER, "");
    rendered.map(|rendered| rendered.files[0].text.clone()).map_err(|fault| format!("fault: {}", short(&fault.message)))
}

/// Where the cases are: beside this file, or random ones where the environment says.
fn place() -> PathBuf {
    std::env::var_os("ACE_DJANGO_CASES").map_or_else(folder, PathBuf::from)
}

#[test]
fn imported_templates_render_to_what_django_renders() {
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(place().join("cases")).expect("cases") {
        let path = entry.expect("an entry").path();
        let golden = place().join("golden").join(path.file_stem().expect("a name")).with_extension("json");
        let golden: BTreeMap<String, String> =
            serde_json::from_str(&std::fs::read_to_string(golden).expect("golden texts")).expect("JSON");
        let found = cases(&std::fs::read_to_string(&path).expect("cases"));
        assert_eq!(found.len(), golden.len(), "{}: run tests/django/make.py", path.display());
        for case in found {
            let expected = &golden[&case.name];
            if case.ours.is_none() && expected.starts_with("raises ") {
                continue;
            }
            count += 1;
            let given = render(&case).unwrap_or_else(|error| error);
            let (wanted, is_right) = match &case.ours {
                Some(ours) => (ours, given == *ours && given != *expected),
                None => (expected, given == *expected),
            };
            if !is_right {
                let files = ace::django::import(&case.files).files;
                wrong.push(format!("{}: {given:?}\n  instead of {wanted:?}\n  {files:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(count >= 150, "{count} cases");
}
