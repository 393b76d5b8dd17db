//! Presentation: `ace render`, `ace templates`, samples in `ace check`, languages and themes of sent messages.

use serde_json::{Value, json};

use crate::support::{Home, assert_text, demo_home, email, mail_home, message, repository};

/// A home with a message `hello.note` in English and French, and a theme.
fn home() -> Home {
    let home = mail_home("[relays.main]\nkind = \"file\"\ndir = \"outbox\"\n");
    home.email_templates(
        "hello",
        "{{ trans(message='Hello %(name)s') }}",
        "<p>{{ blocktrans(message='%(count)s file', plural='%(count)s files', count=files) }}</p>{% include 'part.html' %}",
        "{{ text_direction() }}",
    );
    home.file("templates/part.html", "<i>plain</i>");
    home.file("templates/themes/blue/part.html", "<i>blue</i>");
    home.file(
        "templates/locale/fr/LC_MESSAGES/django.po",
        "msgid \"Hello %(name)s\"\nmsgstr \"Bonjour %(name)s\"\n\nmsgid \"%(count)s file\"\nmsgid_plural \"%(count)s files\"\n\
         msgstr[0] \"%(count)s fichier\"\nmsgstr[1] \"%(count)s fichiers\"\n",
    );
    home
}

fn hello(fields: Value) -> Value {
    let mut message = message("hello", json!({"context": {"name": "Zoë", "files": 2}}));
    fields.as_object().expect("an object").iter().for_each(|(key, value)| message[key] = value.clone());
    message
}

#[test]
fn a_message_is_rendered_in_its_language_and_theme_and_its_report_names_them() {
    let home = home();
    let french = hello(json!({"language": "fr-CA", "options": {"site": "blue"}}));
    let klingon = hello(json!({"language": "tlh"}));
    let lines = home.ace(&["explain", "--json", "-"]).input(format!("{french}\n{klingon}\n")).run().ok().lines();
    let text = |line: &Value, at: usize| email(line)["rendered"][at]["text"].as_str().expect("text").to_owned();
    assert_eq!(email(&lines[0])["language"], "fr-ca");
    assert_eq!(
        (text(&lines[0], 1), text(&lines[0], 2)),
        ("Bonjour Zoë".to_owned(), "<p>2 fichiers</p><i>blue</i>".to_owned())
    );
    assert_eq!(email(&lines[1])["language"], "en");
    assert_text(&email(&lines[1])["language_note"], "there is no catalogue for the language tlh; en is used");
    assert_eq!(
        (text(&lines[1], 1), text(&lines[1], 2)),
        ("Hello Zoë".to_owned(), "<p>2 files</p><i>plain</i>".to_owned())
    );
}

#[test]
fn a_faulty_entry_is_logged_at_start_up_and_affects_only_itself() {
    let home = home();
    let file = "templates/locale/fr/LC_MESSAGES/django.po";
    let faulty =
        "msgid \"Bye %(name)s\"\nmsgstr \"Adieu % (name)s\"\n\n#~ # obsolete\n#~ msgid \"x\"\n#~ msgstr \"y\"\n\n";
    home.file(file, format!("{faulty}{}", home.read(file)));
    let french = hello(json!({"language": "fr"}));
    let done = home.ace(&["explain", "--json", "-"]).input(french.to_string()).run().ok();
    done.says("django.po:1: the translation has `% (name)s`, which is not a placeholder");
    assert_eq!(email(&done.lines()[0])["rendered"][1]["text"], "Bonjour Zoë");
}

#[test]
fn render_writes_page_text_and_mail_and_the_matrix_every_variant() {
    let home = home();
    let file = home.file("message.json", hello(json!({})).to_string());
    let file = file.to_str().expect("text");
    let done = home.ace(&["render", file, "--language", "fr", "--theme", "blue", "--out", "seen"]).run().ok();
    done.says("1 preview, 0 failures");
    let app = hello(json!({}))["app_label"].as_str().expect("text").to_owned();
    let stem = format!("seen/{app}-hello--email--blue--fr");
    assert!(home.read(&format!("{stem}.html")).contains("<p>2 fichiers</p><i>blue</i>"));
    assert_eq!(home.read(&format!("{stem}.txt")), "ltr");
    let mail = home.read(&format!("{stem}.eml"));
    assert!(mail.contains("Subject: Bonjour =?utf-8?") || mail.contains("Subject: =?utf-8?"), "{mail}");

    home.file(
        &format!("templates/{app}/edx_ace/hello/sample.json"),
        json!({"context": {"name": "Ann", "files": 1}}).to_string(),
    );
    let done = home.ace(&["render", "--json", "--matrix", "--channel", "email"]).run().ok();
    let looks: Vec<(Value, Value)> = done
        .lines()
        .iter()
        .filter(|line| line["message"] == format!("{app}.hello"))
        .map(|line| (line["theme"].clone(), line["language"].clone()))
        .collect();
    assert!(looks.contains(&(Value::Null, json!("en"))) && looks.contains(&(json!("blue"), json!("fr"))), "{looks:?}");

    home.file(&format!("templates/{app}/edx_ace/hello/sample.json"), json!({"context": {"name": "Ann"}}).to_string());
    let done = home.ace(&["render", "--json", "--matrix"]).run().code(1);
    let failed: Vec<Value> = done.lines().into_iter().filter(|line| line["failed"].is_string()).collect();
    assert!(failed.len() >= 4, "each language in each theme: {failed:?}");
    assert_text(&failed[0]["failed"], "needs a number as `count`, and that variable is not defined");

    // A sample is a complete message, because its folder provides what it leaves out.
    let sample = format!("templates/{app}/edx_ace/hello/sample.json");
    let content = json!({"context": {"name": "Ann", "files": 1}});
    home.file(&sample, serde_json::to_string_pretty(&content).expect("JSON"));
    let done = home.ace(&["render", "--json", &sample, "--language", "fr"]).run().ok();
    assert_eq!((done.lines().len(), &done.lines()[0]["rendered"][1]["text"]), (1, &json!("Bonjour Ann")));
    home.file(&sample, json!({"app_label": "other", "context": {}}).to_string());
    home.ace(&["render", &sample])
        .run()
        .code(1)
        .says("is a sample of other.hello, but is beside the templates of app.hello");
    home.ace(&["render", file, "--channel", "emial"]).run().code(2).says("--channel: ").says("\"email\"");
}

#[test]
fn check_renders_the_samples_and_names_their_problems() {
    let home = home();
    let app = hello(json!({}))["app_label"].as_str().expect("text").to_owned();
    let sample = format!("templates/{app}/edx_ace/hello/sample.json");
    home.file(&sample, json!({"context": {"name": "Ann", "files": 1}}).to_string());
    home.ace(&["check"]).run().ok();
    home.file(&sample, json!({"context": {"files": 1}}).to_string());
    let done = home.ace(&["check", "--json"]).run().code(1);
    assert_eq!(done.lines().len(), 1, "once, not for each language: {:?}", done.lines());
    assert_text(&done.lines()[0]["location"], "hello/sample.json");
    assert_text(&done.lines()[0]["message"], "subject.txt:1: the text has %(name)s");
    home.file(&sample, "{");
    assert_text(&home.ace(&["check", "--json"]).run().code(1).lines()[0]["message"], "is not valid JSON");
}

#[test]
fn relative_links_are_made_absolute_and_check_names_those_that_stay_relative() {
    let home = home();
    home.email_templates("order", "S", "<p>\n<a href=\"/orders/{{ id }}\">it</a> <img src=\"{{ logo }}\"></p>", "T");
    let sample = json!({"context": {"id": "A-17", "logo": "logo.png"}}).to_string();
    home.file("templates/app/edx_ace/order/sample.json", &sample);
    let lines = home.ace(&["check", "--json"]).run().code(1).lines();
    assert_eq!(lines.len(), 2, "each once: {lines:?}");
    assert_text(&lines[0]["location"], "order/email/body.html:2");
    assert_text(
        &lines[0]["message"],
        "the link `/orders/{{ id }}` is relative and leads nowhere in a mail: set presentation.base-url",
    );
    assert_text(&lines[1]["location"], "order/sample.json");
    assert_text(
        &lines[1]["message"],
        "order/email/body.html: the link `logo.png` is relative and leads nowhere in a mail",
    );

    let config = std::fs::read_to_string(home.path("ace.toml")).expect("the configuration");
    home.file("ace.toml", format!("{config}\n[presentation]\nbase-url = \"https://shop.example/app/\"\n"));
    home.ace(&["check"]).run().ok();
    let order = message("order", json!({"context": {"id": "A-17", "logo": "logo.png"}}));
    let line = home.ace(&["explain", "--json", "-"]).input(order.to_string()).run().ok().lines().remove(0);
    assert_eq!(
        email(&line)["rendered"][2]["text"],
        "<p>\n<a href=\"https://shop.example/orders/A-17\">it</a> <img src=\"https://shop.example/app/logo.png\"></p>"
    );
    home.file("templates/app/edx_ace/order/email/body.html", "<a href='//[x'>");
    let lines = home.ace(&["check", "--json"]).run().code(1).lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_text(
        &lines[0]["message"],
        "the link `//[x` cannot be combined with presentation.base-url: invalid IPv6 address",
    );
}

#[test]
fn a_channel_type_without_templates_is_listed_once_and_not_in_reports() {
    let slack =
        "grants = { http = ['https://hooks.example/services/'] }\nsecrets = { webhook-url = { file = 'webhook' } }";
    let home = mail_home(&format!("[relays.main]\nkind = \"discard\"\n[plugins.slack_webhook_rust]\n{slack}\n"));
    home.example("slack_webhook_rust");
    home.file("webhook", "https://hooks.example/services/T0/B0/x");
    let note = message("note", json!({}));
    let sent = home.send(std::slice::from_ref(&note)).ok().lines().remove(0);
    let types: Vec<&Value> =
        sent["report"]["channels"].as_array().expect("channels").iter().map(|c| &c["channel_type"]).collect();
    assert_eq!(types, ["email", "push"], "{sent}");
    // A message limited to that type reports why nothing was sent.
    let limited = ["send", "--json", "--limit-to", "slack", "-"];
    let told = home.ace(&limited).input(note.to_string()).run().code(1).lines().remove(0);
    let of_slack = crate::support::channel(&told, "slack");
    assert_eq!((&of_slack["state"], &of_slack["absent"]), (&json!("template_error"), &json!(true)));
    let absent = json!({"message": "app.note", "channel_type": "slack", "absent": true});
    let listed = home.ace(&["templates", "--json"]).run().ok().lines();
    assert_eq!(listed.iter().filter(|line| **line == absent).count(), 1, "{listed:?}");
    home.file("templates/app/edx_ace/note/slack/body.txt", "Hi");
    assert!(!home.ace(&["templates", "--json"]).run().ok().lines().contains(&absent));
}

#[test]
fn templates_are_listed_with_what_they_override_and_what_is_missing() {
    let home = home();
    let app = hello(json!({}))["app_label"].as_str().expect("text").to_owned();
    home.file(&format!("templates/themes/blue/{app}/edx_ace/hello/email/subject.txt"), "blue");
    home.file(&format!("templates/{app}/edx_ace/half/email/subject.txt"), "only this");
    // The second folder has the same file; the first one is used.
    home.file("templates/ace_demo/edx_ace/passwordreset/email/subject.txt", "ours");
    let lines = home.ace(&["templates", "--json"]).run().code(1).lines();
    let of = |name: &str, theme: Value, file: &str| {
        let found = lines
            .iter()
            .find(|l| l["name"] == name && l.get("theme").unwrap_or(&Value::Null) == &theme && l["file"] == file);
        found.unwrap_or_else(|| panic!("{name} {theme} {file} in {lines:?}")).clone()
    };
    assert_text(&of("hello", json!("blue"), "subject.txt")["overrides"][0], "hello/email/subject.txt");
    assert_eq!(of("hello", Value::Null, "subject.txt")["overrides"], Value::Null);
    assert_text(
        &of("passwordreset", Value::Null, "subject.txt")["overrides"][0],
        "ace_demo/edx_ace/passwordreset/email/subject.txt",
    );
    let missing: Vec<&Value> =
        lines.iter().filter(|line| line["needed_by"].is_string()).map(|line| &line["file"]).collect();
    assert_eq!(missing, ["body.html", "body.txt", "from_name.txt", "head.html"]);
    let table = home.ace(&["templates"]).run().code(1);
    assert_text(&json!(table.stdout), "missing: django_email needs it");
}

#[test]
fn the_included_catalogues_are_complete_and_match_the_templates() {
    let templates = repository("templates");
    let done = demo_home().ace(&["templates", "extract", "--check", templates.to_str().expect("text")]).run().ok();
    for language in ["ar", "fr", "ja", "pl"] {
        done.says(&format!("locale/{language}/LC_MESSAGES/django.po: unchanged; 0 missing, 0 fuzzy, 0 stale"));
    }
}

#[test]
fn the_included_mails_use_the_plural_forms_of_each_language() {
    let sample =
        std::fs::read(repository("templates/ace_demo/edx_ace/passwordreset/sample.json")).expect("it is there");
    let sample: Value = serde_json::from_slice(&sample).expect("JSON");
    let cases = [
        ("pl", 1, "1 godzinę"),
        ("pl", 2, "2 godziny"),
        ("pl", 5, "5 godzin"),
        ("pl", 12, "12 godzin"),
        ("pl", 22, "22 godziny"),
        ("fr", 1, "1 heure"),
        ("fr", 2, "2 heures"),
        ("ar", 3, "3 ساعات"),
        ("ar", 11, "11 ساعة"),
        ("ja", 1, "、1時間有効です"),
        ("ja", 5, "、5時間有効です"),
    ];
    let messages = cases.map(|(language, hours, _)| {
        let mut message = sample.clone();
        (message["language"], message["context"]["valid_hours"]) = (json!(language), json!(hours));
        message.to_string()
    });
    let lines = demo_home().ace(&["explain", "--json", "-"]).input(messages.join("\n")).run().ok().lines();
    for ((language, hours, expected), line) in cases.into_iter().zip(lines) {
        let files = email(&line)["rendered"].as_array().expect("files").clone();
        let body = files.iter().find(|file| file["name"] == "body.html").expect("a body")["text"].clone();
        let body = body.as_str().expect("text");
        let text = body.split(expected).nth(1).unwrap_or_else(|| panic!("{language} {hours}: {expected} in {body}"));
        assert!(!text.starts_with(char::is_alphabetic), "{language} {hours}: {expected} is a part of a word");
    }
}

/// Checks every page of a folder in Chromium. Returns whether all are fine, and their faults.
fn look(home: &Home, pages: &str) -> (bool, String) {
    let script = repository("tests/templates/look.py");
    let mut command = std::process::Command::new("python3");
    let output = command.arg(script).args([home.path(pages), home.path("shots")]).output().expect("python3 is there");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code < 2) && said.contains(" looks, "), "{said}");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_included_mails_fit_and_are_readable_on_narrow_and_dark_screens_in_every_language() {
    let home = demo_home();
    home.ace(&["render", "--matrix", "--channel", "django_email", "--out", "pages"]).run().ok();
    let (is_fine, faults) = look(&home, "pages");
    assert!(is_fine, "{faults}");
    let right_to_left = "ace_demo-coursedigest--email--ar";
    assert!(home.read(&format!("pages/{right_to_left}.html")).contains("lang=\"ar\" dir=\"rtl\""));
    for width in [360, 1200] {
        for scheme in ["light", "dark"] {
            assert!(home.path(&format!("shots/{right_to_left}-{width}-{scheme}.png")).exists());
        }
    }
}

#[test]
fn a_mail_that_does_not_fit_or_is_unreadable_is_found() {
    let home = Home::empty();
    let pale = "<p id=pale style=\"color: #999\">pale</p><p style=\"font-size: 30px; color: #888\">large</p>";
    let dark = "<meta name=color-scheme content=\"light dark\"><style>:root { color-scheme: light dark }</style>";
    home.file("pages/wide.html", "<table width=700><tr><td id=cell>a table</td></tr></table>");
    home.file("pages/pale.html", pale);
    home.file("pages/night.html", format!("{dark}<p id=night style=\"color: #222\">not seen at night</p>"));
    home.file("pages/turned.html", "<meta charset=utf-8><div lang=ar>مرحبا</div>");
    let (is_fine, faults) = look(&home, "pages");
    assert!(!is_fine);
    let found: Vec<&str> = faults.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    let four = |name: &str| ["360-light", "1200-light", "360-dark", "1200-dark"].map(|look| format!("{name}-{look}"));
    let night = ["night-360-dark", "night-1200-dark"].map(str::to_owned);
    let wide = ["wide-360-light", "wide-360-dark"].map(str::to_owned);
    let expected: Vec<String> = night.into_iter().chain(four("pale")).chain(four("turned")).chain(wide).collect();
    assert_eq!(found, expected, "{faults}");
}
