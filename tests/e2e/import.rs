//! `ace templates import` converts Django templates, and mails look the same.

use serde_json::json;

use crate::support::{Home, email, mail_home, message};

/// A template folder of Django: a layout, a message in five files, and a catalogue.
fn home() -> Home {
    let home = mail_home("[relays.main]\nkind = \"file\"\ndir = \"outbox\"\n");
    home.file(
        "django/common/base_body.html",
        "{% load i18n %}{% get_current_language as LANGUAGE_CODE %}<div lang=\"{{ LANGUAGE_CODE|default:\"en\" }}\">\
         {% block content %}{% endblock %}</div>",
    );
    let app = message("welcome", json!({}))["app_label"].as_str().expect("text").to_owned();
    let files = [
        ("from_name.txt", "{{ platform_name }}"),
        (
            "subject.txt",
            "{% load i18n %}{% autoescape off %}{% blocktrans trimmed %}\n  Welcome to {{ platform_name }}\n{% endblocktrans %}{% endautoescape %}\n",
        ),
        ("head.html", "<title>{{ platform_name }}</title>"),
        (
            "body.html",
            "{% extends 'common/base_body.html' %}\n{% load i18n %}\n{% block content %}<p>{% filter force_escape %}{% blocktrans %}Welcome to {{ platform_name }}{% endblocktrans %}{% endfilter %}</p>{{ course_ids|length }}{% endblock %}",
        ),
        (
            "body.txt",
            "{% autoescape off %}{{ platform_name }}{% if nickname %}, {{ nickname }}{% endif %}{% endautoescape %}",
        ),
    ];
    for (file, text) in files {
        home.file(&format!("django/{app}/edx_ace/welcome/email/{file}"), text);
    }
    home.file(
        "django/locale/fr/LC_MESSAGES/django.po",
        "msgid \"Welcome to %(platform_name)s\"\nmsgstr \"Bienvenue chez %(platform_name)s\"\n",
    );
    home
}

#[test]
fn a_folder_is_imported_with_its_catalogues_and_its_mails_are_sent() {
    let home = home();
    home.ace(&["templates", "import", "django", "--out", "templates"])
        .run()
        .ok()
        .says("6 templates and 1 catalogue written to templates: 0 left to rewrite, 0 notes");
    let welcome = message(
        "welcome",
        json!({"language": "fr", "context": {"platform_name": "Ed & Co", "course_ids": ["a", "b"]}}),
    );
    let lines = home.ace(&["explain", "--json", "-"]).input(welcome.to_string()).run().ok().lines();
    let texts: Vec<&str> = email(&lines[0])["rendered"]
        .as_array()
        .expect("files")
        .iter()
        .filter_map(|file| file["text"].as_str())
        .collect();
    assert_eq!(texts[..2], ["Ed & Co", "Bienvenue chez Ed & Co\n"]);
    let body = texts.iter().find(|text| text.contains("<div")).expect("a body");
    assert!(
        body.contains("lang=\"fr\"") && body.contains("Bienvenue chez Ed &amp;amp; Co") && body.contains("</p>2"),
        "{body}"
    );
    assert!(texts.contains(&"Ed & Co"), "{texts:?}");
}

#[test]
fn untranslated_parts_are_named_and_existing_files_are_not_overwritten() {
    let home = home();
    home.file("django/other/page.html", "a\n<a href=\"{% dashboard_link %}\">{{ x|frob }}</a>\n");
    home.file("django/other/logo.png", "");
    let done = home.ace(&["templates", "import", "django", "--out", "new", "--json"]).run().code(1);
    // By line; the summary has no line.
    let lines = done.lines();
    let (summary, url) = (&lines[0], &lines[1]);
    assert_eq!((&summary["untranslated"], &summary["templates"]), (&json!(2), &json!(7)));
    assert_eq!(
        (&url["line"], &url["severity"], &url["source"]),
        (&json!(2), &json!("untranslated"), &json!("{% dashboard_link %}"))
    );
    assert!(url["suggestion"].as_str().is_some_and(|hint| hint.contains("[templates.tags]")), "{url}");
    done.says("other/logo.png is neither a template nor a catalogue");
    assert!(home.read("new/other/page.html").contains("{# not translated: {% dashboard_link %} #}"));
    home.ace(&["templates", "import", "django", "--out", "new"]).run().code(2).says("already exists");
    home.ace(&["templates", "import", "django", "--out", "django/in"])
        .run()
        .code(2)
        .says("is inside the folder to import");
}

#[test]
fn pages_get_their_addresses_from_a_table_and_each_missing_one_is_named() {
    let home = home();
    home.file(
        "django/other/page.txt",
        "{% url 'orders' number=o.id %} {% url 'home' %}{% base_url as b %}{{ b }} {{ 1.5|money }}{% own %}",
    );
    home.file("site.toml", "template-dirs = [\"new\"]\n[templates]\ntags.base_url = \"https://x.org\"\nfilters.money = \"floatformat:2\"\nroutes.home = \"/\"\n");
    home.file("new/.keep", "");
    let import = ["templates", "import", "django", "--out", "new", "--config", "site.toml"];
    let done = home.ace(&import).run().code(1);
    done.says("1 left to rewrite").says("new/routes.toml: fill in the address of 1 page there");
    assert!(home.read("new/routes.toml").ends_with("\"orders\" = \"\"  # with {number}\n"));
    assert!(
        home.read("new/other/page.txt").contains("{% set b = \"https://x.org\""),
        "{}",
        home.read("new/other/page.txt")
    );
    let stubbed = [&import[..], &["--force", "--stub"]].concat();
    home.ace(&stubbed).run().ok().says("0 left to rewrite, 0 notes, 1 left out as stubs");
    let check = || home.ace(&["check", "--config", "site.toml"]).run();
    assert!(check().code(1).stdout.contains("page.txt:1: the page `orders` has no route"), "{}", check().stdout);
    let filled = home.read("new/routes.toml").replace("= \"\"", "= \"/orders/{number}/\"");
    home.file("new/routes.toml", &filled);
    home.ace(&stubbed).run().ok();
    assert_eq!(home.read("new/routes.toml"), filled, "what is filled in stays");
    assert!(!check().stdout.contains("has no route"));
}

#[test]
fn a_folder_of_catalogues_can_be_imported_alone() {
    let home = home();
    home.file("conf/locale/fr/LC_MESSAGES/django.po", "msgid \"a\"\nmsgstr \"b\"\n");
    home.file("conf/locale/fr/LC_MESSAGES/djangojs.po", "msgid \"a\"\nmsgstr \"c\"\n");
    home.ace(&["templates", "import", "conf/locale", "--out", "templates"])
        .run()
        .ok()
        .says("0 templates and 1 catalogue written to templates: 0 left")
        .says("fr/LC_MESSAGES/djangojs.po is neither");
    assert!(home.read("templates/locale/fr/LC_MESSAGES/django.po").contains("msgstr \"b\""));
    let error = home.ace(&["templates", "import", "nowhere", "--out", "templates"]).run().code(2);
    error.says("cannot read nowhere: No such file or directory (os error 2)\n");
}
