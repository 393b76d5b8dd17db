//! Themes and languages, through whole renders.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config;
use crate::message::{Message, TemplateFile};
use crate::presentation::Presentation;
use crate::presentation::tests::support::{Folders, hello, subject};

const POLISH: &str = "msgid \"\"\nmsgstr \"Plural-Forms: nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 && \
                      (n%100<10 || n%100>=20) ? 1 : 2);\\n\"\n\n\
                      msgid \"Hello %(name)s!\"\nmsgstr \"<b>Cześć</b> %(name)s!\"\n\n\
                      msgid \"%(count)s file\"\nmsgid_plural \"%(count)s files\"\n\
                      msgstr[0] \"%(count)s plik\"\nmsgstr[1] \"%(count)s pliki\"\nmsgstr[2] \"%(count)s plików\"\n";

fn in_language(language: &str, context: Value) -> Message {
    Message { language: Some(language.to_owned()), ..hello(context) }
}

/// Renders one file of `app.hello`.
fn one(presentation: &Presentation, message: &Message, file: &str) -> Result<String, String> {
    let files = [TemplateFile::required(file)];
    let rendered = presentation.render(message, &subject(&files)).map_err(|fault| fault.message)?;
    Ok(rendered.files[0].text.clone())
}

#[test]
fn texts_come_in_the_messages_language_and_their_values_are_escaped_as_the_file_demands() {
    let folders = Folders::new();
    let template = "{{ trans(message='Hello %(name)s!') }} {{ 'Hello %(name)s!' | trans(name='<i>') }}";
    folders.hello("body.html", template).hello("body.txt", template).write("a/locale/pl/LC_MESSAGES/django.po", POLISH);
    let presentation = folders.load(&["a"]);
    let polish = in_language("pl", json!({"name": "<Tom>"}));
    let html = one(&presentation, &polish, "body.html").unwrap();
    assert_eq!(html, "<b>Cześć</b> &lt;Tom&gt;! <b>Cześć</b> &lt;i&gt;!");
    assert_eq!(one(&presentation, &polish, "body.txt").unwrap(), "<b>Cześć</b> <Tom>! <b>Cześć</b> <i>!");
    let english = in_language("en", json!({"name": "<Tom>"}));
    assert_eq!(one(&presentation, &english, "body.txt").unwrap(), "Hello <Tom>! Hello <i>!");
    let fault = one(&presentation, &in_language("pl", json!({})), "body.txt").unwrap_err();
    assert!(fault.contains("body.txt:1: the text has %(name)s, but there is no argument"), "{fault}");
}

#[test]
fn a_number_chooses_the_form_by_the_catalogues_own_rule() {
    let folders = Folders::new();
    let template = "{% for n in numbers %}{{ blocktrans(message='%(count)s file', plural='%(count)s files', count=n) }};{% endfor %}";
    folders.hello("body.txt", template).write("a/locale/pl/LC_MESSAGES/django.po", POLISH);
    let presentation = folders.load(&["a"]);
    let text =
        |language: &str| one(&presentation, &in_language(language, json!({"numbers": [1, 2, 5, 22, 112]})), "body.txt");
    assert_eq!(text("pl").unwrap(), "1 plik;2 pliki;5 plików;22 pliki;112 plików;");
    assert_eq!(text("en").unwrap(), "1 file;2 files;5 files;22 files;112 files;");
    let fault = one(&presentation, &in_language("pl", json!({"numbers": ["many"]})), "body.txt").unwrap_err();
    assert!(fault.contains("`blocktrans` needs a number as `count`, and `many` is "), "{fault}");
}

#[test]
fn an_unknown_language_falls_back_and_says_so() {
    let folders = Folders::new();
    folders.hello("body.txt", "{{ get_current_language() }}").write("a/locale/pl/LC_MESSAGES/django.po", POLISH);
    let presentation = folders.load(&["a"]);
    let files = [TemplateFile::required("body.txt")];
    let render = |language| presentation.render(&in_language(language, json!({})), &subject(&files)).unwrap();
    let rendered = render("tlh");
    assert_eq!((rendered.language.as_str(), rendered.files[0].text.as_str()), ("en", "en"));
    assert_eq!(rendered.note.as_deref(), Some("there is no catalogue for the language tlh; en is used"));
    assert_eq!((render("PL").language.as_str(), render("PL").note), ("pl", None));
}

#[test]
fn dates_and_numbers_are_written_as_the_language_writes_them() {
    let folders = Folders::new();
    folders.hello(
        "body.txt",
        "{{ at | format_date(length='full') }}|{{ at | format_date }}|{{ at | format_time }}|\
         {{ at | format_datetime(length='short', time_zone='Asia/Tokyo') }}|{{ 1234567.891 | format_decimal(digits=2) }}|\
         {{ 0 | format_date(length='long') }}|{{ get_current_language_bidi() }} {{ text_direction() }}",
    );
    let presentation = folders.load(&["a"]);
    let text = |language: &str| {
        let text =
            one(&presentation, &in_language(language, json!({"at": "2026-11-03T18:05:00Z"})), "body.txt").unwrap();
        // CLDR joins with spaces that do not break.
        text.replace(['\u{202f}', '\u{a0}'], " ")
    };
    assert_eq!(
        text("en"),
        "Tuesday, November 3, 2026|Nov 3, 2026|6:05 PM|11/4/26, 3:05 AM|1,234,567.89|January 1, 1970|false ltr"
    );
    assert_eq!(
        text("fr"),
        "mardi 3 novembre 2026|3 nov. 2026|18:05|04/11/2026 03:05|1 234 567,89|1 janvier 1970|false ltr"
    );
    assert_eq!(text("ja"), "2026年11月3日火曜日|2026/11/03|18:05|2026/11/04 3:05|1,234,567.89|1970年1月1日|false ltr");
    assert!(text("ar").ends_with("|true rtl"), "{}", text("ar"));
    assert!(text("pl").starts_with("wtorek, 3 listopada 2026|3 lis 2026|18:05|"), "{}", text("pl"));
    let wrong = folders.hello("body.txt", "{{ 'soon' | format_date }}").load(&["a"]);
    let fault = one(&wrong, &hello(json!({})), "body.txt").unwrap_err();
    assert!(fault.contains("`soon` is not a date: write it in ISO 8601, or as Unix seconds"), "{fault}");
}

#[test]
fn a_theme_overrides_single_files_wherever_it_stands() {
    let folders = Folders::new();
    folders
        .hello("body.txt", "{% extends 'common/base.txt' %}{% block c %}{{ trans(message='yes') }}{% endblock c %}")
        .hello("subject.txt", "plain subject")
        .write("a/common/base.txt", "plain[{% block c %}{% endblock c %}]{% include 'common/end.txt' %}")
        .write("a/common/end.txt", "plain end")
        .write("a/themes/blue/common/end.txt", "blue end")
        .write("b/themes/blue/app/edx_ace/hello/email/subject.txt", "blue subject")
        .write("b/themes/red/common/base.txt", "red[{% block c %}{% endblock c %}]")
        .write("b/themes/blue/locale/fr/LC_MESSAGES/django.po", "msgid \"yes\"\nmsgstr \"ouais\"\n")
        .write("a/app/locale/fr/LC_MESSAGES/django.po", "msgid \"yes\"\nmsgstr \"oui\"\n");
    let dirs = ["a", "b"].map(|dir| folders.0.path().join(dir));
    let settings = config::Presentation { default_theme: Some("red".to_owned()), ..Default::default() };
    let (plain, themed) = (folders.load(&["a", "b"]), Presentation::load(&dirs, &settings));
    assert_eq!(plain.problems(), []);
    let of = |presentation: &Presentation, site: &str| {
        let mut message = in_language("fr", json!({}));
        message.options.insert("site".to_owned(), json!(site));
        let text = |file| one(presentation, &message, file).unwrap();
        (text("subject.txt"), text("body.txt"))
    };
    let pair = |subject: &str, body: &str| (subject.to_owned(), body.to_owned());
    assert_eq!(of(&plain, "blue"), pair("blue subject", "plain[ouais]blue end"));
    assert_eq!(of(&plain, "unheard of"), pair("plain subject", "plain[oui]plain end"));
    assert_eq!(of(&themed, "unheard of"), pair("plain subject", "red[oui]"));
    assert_eq!(of(&themed, "blue"), pair("blue subject", "plain[ouais]blue end"));
    let mut message = hello(json!({}));
    message.options.insert("site".to_owned(), json!("blue"));
    let fault = folders.short(&one(&plain, &message, "none.txt").unwrap_err());
    let place = |dir: &str| format!("{dir}/app/edx_ace/hello/email");
    let places = ["a/themes/blue", "b/themes/blue", "a", "b"].map(place).join(", ");
    assert_eq!(fault, format!("template app/edx_ace/hello/email/none.txt is missing; looked in {places}"));
}

#[test]
fn a_malformed_catalogue_is_a_problem_with_its_line_and_a_broken_edit_leaves_the_one_before() {
    let folders = Folders::new();
    let file = "a/locale/fr/LC_MESSAGES/django.po";
    folders.hello("body.txt", "{{ trans(message='yes') }}").write(file, "msgid \"yes\"\nmsgstr \"oui\"\n");
    let dirs = [folders.0.path().join("a")];
    let settings = config::Presentation::default();
    let before = Arc::new(folders.load(&["a"]));
    let text = |presentation: &Presentation| one(presentation, &in_language("fr", json!({})), "body.txt").unwrap();
    assert_eq!(text(&before), "oui");

    folders.write(file, "msgid \"yes\"\nmsgstr \"ouais\n");
    let broken = before.reload(&dirs, &settings);
    assert_eq!(text(&broken), "oui");
    assert_eq!(folders.problems(&broken), [format!("{file}:2: a closing quote is missing")]);

    folders.write(file, "msgid \"yes\"\nmsgstr \"ouais\"\n\nmsgid \"no\"\nmsgstr \"%(x)s\"\n");
    let doubtful = broken.reload(&dirs, &settings);
    assert_eq!(text(&doubtful), "oui");
    let expected = format!("{file}:4: the translation has %(x)s, which the message does not have");
    assert_eq!(folders.problems(&doubtful), [expected]);

    folders.write(file, "msgid \"yes\"\nmsgstr \"ouais\"\n");
    let fixed = doubtful.reload(&dirs, &settings);
    assert_eq!((text(&fixed).as_str(), fixed.problems()), ("ouais", &[][..]));
    // Read for the first time, what can be used of it is used.
    folders.write(file, "msgid \"yes\"\nmsgstr \"ouais\"\n\nmsgid \"no\"\nmsgstr \"%(x)s\"\n");
    assert_eq!(text(&folders.load(&["a"])), "ouais");
}

#[test]
fn our_own_templates_speak_every_language_of_their_catalogues() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../templates");
    let presentation = Presentation::load(&[folder], &config::Presentation::default());
    assert_eq!(presentation.problems(), []);
    assert_eq!(presentation.languages().into_iter().collect::<Vec<_>>(), ["ar", "fr", "ja", "pl"]);
    let samples = presentation.samples();
    let sample = |name: &str, language: &str| {
        let messages =
            samples.iter().map(|(file, message)| message.as_ref().unwrap_or_else(|e| panic!("{file:?}: {e}")));
        let found = messages.into_iter().find(|message| message.name == name);
        Message { language: Some(language.to_owned()), ..found.unwrap().clone() }
    };
    let subject = |language: &str, due: u64| {
        let mut message = sample("coursedigest", language);
        message.context.insert("due_count", due);
        one(&presentation, &message, "subject.txt").unwrap().trim().to_owned()
    };
    let polish = [1, 3, 5, 12, 22].map(|due| subject("pl", due).split(" do oddania").next().unwrap().to_owned());
    assert_eq!(polish, ["1 zadanie", "3 zadania", "5 zadań", "12 zadań", "22 zadania"]);
    assert_eq!(subject("ja", 3), "Riverside Learning: 今週の締め切りは3件です");
    assert_eq!(subject("fr", 0), "Votre semaine sur Riverside Learning");
    for (language, direction) in [("ar", "rtl"), ("fr", "ltr"), ("ja", "ltr"), ("pl", "ltr"), ("en", "ltr")] {
        for name in ["passwordreset", "coursedigest", "weeklynews"] {
            let html = one(&presentation, &sample(name, language), "body.html").unwrap();
            assert!(html.contains(&format!("lang=\"{language}\" dir=\"{direction}\"")), "{name} in {language}");
            let is_english = html.contains("You get this") || html.contains("You get the");
            assert_eq!(is_english, language == "en", "{name} in {language}");
        }
    }
}
