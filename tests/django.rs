//! Django itself said what each of these templates renders to (`tests/django/make.py`); imported, they must render to the
//! same. Departures: text files are not escaped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ace::config;
use ace::message::{Message, TemplateFile};
use ace::presentation::{Presentation, Subject};
use serde_json::Value;

/// Where a case's main file stands.
const FOLDER: &str = "app/edx_ace/case/test/";

struct Case {
    name: String,
    language: Option<String>,
    main: String,
    context: serde_json::Map<String, Value>,
    files: BTreeMap<String, String>,
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
    let language = options.split(' ').find(|option| !option.is_empty() && !option.contains('.')).map(str::to_owned);
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
    Case { name: name.to_owned(), language, main, context, files }
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
    if let Some(finding) = import.findings.first() {
        return Err(finding.to_string());
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in &import.files {
        let file = dir.path().join("templates").join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, text).expect("written");
    }
    let dirs = [dir.path().join("templates"), folder()];
    let presentation = Presentation::load(&dirs, &config::Presentation::default());
    let mut message = Message::new("app", "case", None);
    message.context = case.context.clone();
    message.language = case.language.clone();
    let files = [TemplateFile::required(&case.main)];
    let subject =
        Subject { channel: "test", channel_type: "test", files: &files, action_links: &[], tracker_image_sources: &[] };
    let rendered = presentation.render(&message, &subject);
    let source = import.files.iter().map(|(name, text)| format!("--- {name}\n{text}\n")).collect::<String>();
    rendered.map(|rendered| rendered.files[0].text.clone()).map_err(|fault| format!("{}\n{source}", fault.message))
}

#[test]
fn imported_templates_render_to_what_django_renders() {
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(folder().join("cases")).expect("cases") {
        let path = entry.expect("an entry").path();
        let golden = folder().join("golden").join(path.file_stem().expect("a name")).with_extension("json");
        let golden: BTreeMap<String, String> =
            serde_json::from_str(&std::fs::read_to_string(golden).expect("golden texts")).expect("JSON");
        let found = cases(&std::fs::read_to_string(&path).expect("cases"));
        assert_eq!(found.len(), golden.len(), "{}: run tests/django/make.py", path.display());
        for case in found {
            count += 1;
            let expected = &golden[&case.name];
            match render(&case) {
                Ok(text) if text == *expected => {}
                Ok(text) => wrong.push(format!(
                    "{}: {:?}\n  instead of {expected:?}\n  {:?}",
                    case.name,
                    text,
                    ace::django::import(&case.files).files
                )),
                Err(error) => wrong.push(format!("{}: {error}", case.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(count >= 150, "{count} cases");
}
