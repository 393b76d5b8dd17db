//! Imported templates must render to the text that Django itself renders (recorded by `tests/django/make.py`), except for the cases that
//! name another text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ace::config;
use ace::internals::presentation::{Presentation, Subject};
use ace::message::{ActionLink, Message, TemplateFile};
use ace_django::{Options, Severity, Tag};
use serde_json::Value;

/// The folder of a case's main file.
const FOLDER: &str = "app/edx_ace/case/email/";
/// Settings and message of the recordings.
const SITE: &str = "https://courses.example.org";
const STATIC: &str = "https://static.example.org/app/";
const UUID: &str = "7a3c1d1e-5b0f-4c55-9d0e-1f0c8a6e2b01";

struct Case {
    name: String,
    language: Option<String>,
    /// Whether the case is rendered in each language of Django.
    is_in_each: bool,
    zone: Option<String>,
    main: String,
    context: serde_json::Map<String, Value>,
    files: BTreeMap<String, String>,
    /// ACE's text, if it is known to differ from Django's.
    ours: Option<String>,
    links: Vec<ActionLink>,
    trackers: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/django")
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
    let (zones, options): (Vec<&str>, Vec<&str>) = options.split(' ').partition(|option| option.starts_with("zone="));
    let zone = zones.first().map(|zone| zone.replace("zone=", ""));
    let main = options.iter().find(|option| option.contains('.')).unwrap_or(&"main.html").to_string();
    let is_language = |option: &&&str| !option.is_empty() && !option.contains('.') && **option != "differs";
    let language = options.iter().find(is_language).map(|language| (*language).to_owned());
    let is_in_each = language.as_deref() == Some("*");
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
    assert_eq!(ours.is_some(), options.contains(&"differs"), "{name}");
    let channel = context.remove("$channel").unwrap_or_default();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let listed = |name: &str| channel[name].as_array().cloned().unwrap_or_default();
    let link = |l: &Value| ActionLink { url: text(&l[0]), text: text(&l[1]), unsubscribe: l[2] == true };
    let links = listed("links").iter().map(link).collect();
    let trackers = listed("trackers").iter().map(text).collect();
    Case { name: name.to_owned(), language, is_in_each, zone, main, context, files, ours, links, trackers }
}

fn with_dates(value: Value) -> Value {
    match value {
        Value::Object(map) if map.len() == 1 && map.contains_key("$ago") => {
            let before = jiff::SignedDuration::from_secs(map["$ago"].as_i64().expect("seconds"));
            (jiff::Timestamp::now() - before).to_string().into()
        }
        Value::Object(map) if map.len() == 1 && map.contains_key("$date") => map["$date"].clone(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(key, value)| (key, with_dates(value))).collect()),
        Value::Array(list) => Value::Array(list.into_iter().map(with_dates).collect()),
        other => other,
    }
}

/// The replacements for the project tags and filters that make.py defines.
fn options() -> Options {
    let tags = [
        ("base_url_setting", Tag::Setting("base-url".to_owned())),
        ("site_name", Tag::Text("The <b>Site</b>".to_owned())),
        ("current_user", Tag::Value("user.name".to_owned())),
    ];
    let filters = [("currency", "floatformat:2"), ("display", "")];
    Options {
        stub: false,
        tags: tags.map(|(name, tag)| (name.to_owned(), tag)).into(),
        filters: filters.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
    }
}

/// Renders a case. `catalogs` is an additional template folder.
fn render(case: &Case, catalogs: Option<&Path>) -> Result<String, String> {
    render_each(case, catalogs, &[case.language.as_deref()]).remove(0)
}

/// Renders a case in each of these languages.
fn render_each(case: &Case, catalogs: Option<&Path>, languages: &[Option<&str>]) -> Vec<Result<String, String>> {
    let import = ace_django::import(&case.files, &options());
    if let Some(finding) = import.findings.iter().find(|finding| finding.severity == Severity::Untranslated) {
        return vec![Err(finding.to_string().replace(FOLDER, "")); languages.len()];
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in &import.files {
        let file = dir.path().join("templates").join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, text).expect("written");
    }
    let mut dirs = vec![dir.path().join("templates")];
    dirs.extend((!case.is_in_each).then(folder));
    dirs.extend(catalogs.map(Path::to_owned));
    let settings = config::Presentation {
        base_url: Some(SITE.parse().expect("an address")),
        static_url: Some(STATIC.to_owned()),
        time_zone: jiff::tz::TimeZone::get(case.zone.as_deref().unwrap_or("UTC")).expect("a time zone"),
        ..config::Presentation::default()
    };
    let presentation = Presentation::load(&dirs, &settings);
    let mut message = Message::new("app", "case", None);
    message.uuid = UUID.parse().expect("a UUID");
    message.context = case.context.clone().into();
    let files = [TemplateFile::required(&case.main)];
    let subject = Subject {
        channel: "test",
        channel_type: "email",
        files: &files,
        action_links: &case.links,
        tracker_image_sources: &case.trackers,
    };
    let short = |text: &str| text.replace(&format!("{}/", dirs[0].display()), "").replace(FOLDER, "");
    let mut render = |language: &Option<&str>| {
        message.language = language.map(str::to_owned);
        let rendered = presentation.render(&message, &subject);
        let text = rendered.map(|rendered| rendered.files[0].text.clone());
        text.map_err(|fault| format!("fault: {}", short(&fault.message)))
    };
    languages.iter().map(&mut render).collect()
}

/// Django's text for a case, or its texts by language.
fn texts(golden: &Value) -> Vec<(Option<&str>, &str)> {
    match golden {
        Value::Object(texts) => {
            texts.iter().map(|(language, text)| (Some(&**language), text.as_str().unwrap())).collect()
        }
        text => vec![(None, text.as_str().unwrap())],
    }
}

/// The folder of the cases: beside this file, or the one of random cases that the environment names.
fn place() -> PathBuf {
    std::env::var_os("ACE_DJANGO_CASES").map_or_else(folder, PathBuf::from)
}

#[test]
fn imported_templates_render_to_what_django_renders() {
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(place().join("cases")).expect("cases") {
        let path = entry.expect("an entry").path();
        let golden = place().join("golden").join(path.file_stem().expect("a name")).with_extension("json");
        let golden: BTreeMap<String, Value> =
            serde_json::from_str(&std::fs::read_to_string(golden).expect("golden texts")).expect("JSON");
        let found = cases(&std::fs::read_to_string(&path).expect("cases"));
        assert_eq!(found.len(), golden.len(), "{}: run tests/django/make.py", path.display());
        for case in found {
            let expected = texts(&golden[&case.name]);
            if case.ours.is_none() && expected[0].1.starts_with("raises ") {
                continue;
            }
            let languages: Vec<_> = expected.iter().map(|(each, _)| each.or(case.language.as_deref())).collect();
            let given = render_each(&case, None, &languages);
            for ((language, expected), given) in expected.into_iter().zip(given) {
                count += 1;
                let given = given.unwrap_or_else(|error| error);
                let (wanted, is_right) = match &case.ours {
                    Some(ours) => (&**ours, given == *ours && given != expected),
                    None => (expected, given == expected),
                };
                if !is_right {
                    let files = ace_django::import(&case.files, &options()).files;
                    let name = format!("{} {}", case.name, language.unwrap_or_default());
                    wrong.push(format!("{name}: {given:?}\n  instead of {wanted:?}\n  {files:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(count >= 150, "{count} cases");
}

/// Django's own catalogues have no faults, except that Hebrew's header declares plural forms that are missing.
#[test]
fn djangos_own_catalogues_are_read_completely() {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/lib");
    let mut pythons = std::fs::read_dir(packages).expect("tests/venv.sh makes target/venv").filter_map(Result::ok);
    let locales = pythons.find_map(|python| {
        let folder = python.path().join("site-packages/django/conf/locale");
        folder.is_dir().then_some(folder)
    });
    let dir = tempfile::tempdir().expect("a temporary folder");
    for folder in std::fs::read_dir(locales.expect("Django")).expect("languages").filter_map(Result::ok) {
        let file = folder.path().join("LC_MESSAGES/django.po");
        if file.exists() {
            let place = dir.path().join("locale").join(folder.file_name()).join("LC_MESSAGES");
            std::fs::create_dir_all(&place).expect("made");
            std::fs::copy(file, place.join("django.po")).expect("copied");
        }
    }
    std::fs::write(dir.path().join("a.html"), "").expect("written");
    let presentation = Presentation::load(&[dir.path().to_owned()], &config::Presentation::default());
    let is_known = |problem: &str| problem.ends_with("the message has 3 plural forms, but Plural-Forms says 4");
    let problems: Vec<String> = presentation.problems().iter().map(ToString::to_string).collect();
    let unknown: Vec<_> = problems.iter().filter(|problem| !(problem.contains("/he/") && is_known(problem))).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
    // French declares two forms, and has three of this message.
    let case = case("three forms [fr]\n{{ 2|filesizeformat }} {{ 1|filesizeformat }}");
    assert_eq!(render(&case, Some(dir.path())).as_deref(), Ok("2\u{a0}octets 1\u{a0}octet"));
}

/// Pieces of Django templates, valid and invalid.
const PIECES: [&str; 84] = [
    "{% cycle 'a' b %}",
    "{% cycle a 'b' as c silent %}",
    "{% cycle c %}",
    "{% resetcycle %}",
    "{% regroup l by x as g %}",
    "{% ifchanged a %}",
    "{% ifchanged %}",
    "{% endifchanged %}",
    "{% timezone a %}",
    "{% endtimezone %}",
    "{% localize off %}",
    "{% endlocalize %}",
    "{% widthratio a b 100 as w %}",
    "{% own a as o %}",
    "{% endown %}",
    "{% include a %}",
    "{% with file='b.html' %}{% include file %}{% endwith %}",
    "{% url 'x' a b=c as u %}",
    "text",
    " { ",
    "}}",
    "{%",
    "{{",
    "\n",
    "{# c #}",
    "{#",
    "{{ a }}",
    "{{ a.b.0|default:\"x\" }}",
    "{{ a|upper|frob }}",
    "{{ none }}",
    "{{ \"it's {{\"|safe }}",
    "{{ forloop.counter }}",
    "{{ forloop.parentloop.first }}",
    "{{ forloop }}",
    "{{ block.super }}",
    "{{ a|add:\"x\"|join:b }}",
    "{{ _(\"x%\") }}",
    "{{ 1e400 }}",
    "{% if a %}",
    "{% if a and not b in c or d is None %}",
    "{% if a|length > 1 %}",
    "{% if a b %}",
    "{% elif b %}",
    "{% else %}",
    "{% endif %}",
    "{% for x in l %}",
    "{% for k, v in m.items reversed %}",
    "{% for a, b, c in l %}",
    "{% for loop in l %}",
    "{% empty %}",
    "{% endfor %}",
    "{% with a=b c=a %}",
    "{% with b|lower as a %}",
    "{% endwith %}",
    "{% block a %}",
    "{% block b-1 %}",
    "{% block 1 %}",
    "{% endblock %}",
    "{% filter upper|force_escape %}",
    "{% filter safe %}",
    "{% endfilter %}",
    "{% autoescape off %}",
    "{% autoescape on %}",
    "{% endautoescape %}",
    "{% spaceless %}",
    "{% endspaceless %}",
    "{% trans 'x' as y %}",
    "{% trans a context 'c' %}",
    "{% blocktrans count n=a with b=c %}",
    "{% blocktrans trimmed asvar x %}",
    "{% plural %}",
    "{% endblocktrans %}",
    "{% comment %}",
    "{% endcomment %}",
    "{% verbatim %}",
    "{% endverbatim %}",
    "{% include 'b.html' with a=b only %}",
    "{% include 'b.html' %}",
    "{% extends 'b.html' %}",
    "{% firstof a b as x %}",
    "{% url 'x' %}",
    "{% static a|add:'x' as y %}",
    "{% get_action_links channel as l %}",
    "{% interpolate_html a value=b x=c %}",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Whatever the importer reads, its output is a valid template, and each piece that it could not translate is kept.
    #[test]
    fn the_output_is_always_a_valid_template(
        pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..14),
        other in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..6),
    ) {
        let files = [("a.html", pieces.concat()), ("b.html", other.concat())];
        let import = ace_django::import(&files.map(|(name, text)| (name.to_owned(), text)).into(), &Options::default());
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in &import.files {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let presentation = Presentation::load(&[dir.path().to_owned()], &config::Presentation::default());
        let is_known = |problem: &str| ["includes itself", "extends itself", "which is broken", "has no route"].iter().any(|known| problem.contains(known));
        for problem in presentation.problems() {
            proptest::prop_assert!(is_known(&problem.message), "{problem}\n{:?}", import.files);
        }
        for finding in import.findings.iter().filter(|finding| finding.severity == Severity::Untranslated) {
            let kept = finding.source.replace("#}", "# }");
            proptest::prop_assert!(import.files[&finding.file].contains(kept.trim()), "{finding}\n{:?}", import.files);
        }
    }
}
