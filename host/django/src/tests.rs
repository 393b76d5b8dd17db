use proptest::prelude::*;

use super::*;

fn import_one(text: &str) -> Import {
    import(&BTreeMap::from([("a.html".to_owned(), text.to_owned())]), &Options::default())
}

fn tera(text: &str) -> String {
    let import = import_one(text);
    assert!(import.findings.is_empty(), "{:?}", import.findings);
    import.files["a.html"].clone()
}

#[test]
fn templates_stay_readable() {
    assert_eq!(tera("Dear {{ user.name }},"), "Dear {{ user?.name | text }},");
    assert_eq!(tera("{{ nick|default:\"there\" }}"), "{{ (nick or \"there\") | text }}");
    assert_eq!(
        tera("{% load i18n %}{% trans \"Hi\" as hi %}{{ hi }}"),
        "{% set hi = trans(message=\"Hi\") %}{{ hi | text }}"
    );
    assert_eq!(
        tera("{% for c in courses %}{{ forloop.counter }}{% empty %}none{% endfor %}"),
        "{% for c in courses | each %}{{ loop.index }}{% else %}none{% endfor %}"
    );
    assert_eq!(
        tera("{% if ids|length > 1 and x is not None %}a{% endif %}"),
        "{% if ids | django_length > 1 and x is not absent %}a{% endif %}"
    );
    assert_eq!(
        tera("{% blocktrans trimmed with n=user.name %}\n Hi {{ n }}, 5%\n{% endblocktrans %}"),
        "{{ blocktrans(message=\"Hi %(n)s, 5%%\", n=user?.name | text) }}"
    );
}

#[test]
fn untranslatable_tags_are_reported_and_stay_as_comments() {
    let import = import_one("a\n{% frob 'home' %}\n{{ x|frob }}{% if a b %}c{% endif %}{% endfor %}");
    let said: Vec<(usize, &str)> = import.findings.iter().map(|f| (f.line, f.source.as_str())).collect();
    assert_eq!(said, [(2, "{% frob 'home' %}"), (3, "{{ x|frob }}"), (3, "{% if a b %}"), (3, "{% endfor %}")]);
    assert!(import.findings.iter().all(|f| f.severity == Severity::Untranslated && !f.suggestion.is_empty()));
    let text = &import.files["a.html"];
    assert_eq!(text.matches("{# not translated: ").count(), 4, "{text}");
    assert!(text.contains("{# not translated: {% frob 'home' %} #}"), "{text}");
    assert!(text.contains("{% if false %}c{% endif %}"), "{text}");
}

#[test]
fn tags_that_django_rejects_are_reported_and_the_rest_is_translated() {
    for (text, stray, written) in [
        (
            "{% if a %}1{% else %}2{% elif b %}3{% endif %}",
            "{% elif b %}",
            "{% if a %}1{% else %}2{# not translated: {% elif b %} #}3{% endif %}",
        ),
        (
            "{% extends 'b' %}{% extends 'c' %}",
            "{% extends 'c' %}",
            "{% extends \"b\" %}{# not translated: {% extends 'c' %} #}",
        ),
        (
            "{% block a %}1{% endblock %}{% extends 'b' %}",
            "{% extends 'b' %}",
            "{% block a %}1{% endblock %}{# not translated: {% extends 'b' %} #}",
        ),
    ] {
        let files = [("a.html".to_owned(), text.to_owned())].into();
        let import = import_with(&files, &Options::default(), &["b".to_owned(), "c".to_owned()].into());
        let left: Vec<_> = import
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Untranslated)
            .map(|f| f.source.as_str())
            .collect();
        assert_eq!(left, [stray]);
        assert_eq!(import.files["a.html"], written);
    }
}

#[test]
fn blocks_that_no_parent_has_are_reported_and_ignored_as_in_django() {
    let files = [
        (
            "a",
            "{% extends 'b' %}{% block x %}1{% block y %}2{% endblock %}{% endblock %}{% if z %}{% block w %}3{% endblock %}{% endif %}",
        ),
        ("b", "{% extends 'c' %}"),
        ("c", "{% block y %}{% endblock %}"),
        ("d", "{% extends 'elsewhere' %}{% block x %}4{% endblock %}"),
    ];
    let import = import(&files.map(|(name, text)| (name.to_owned(), text.to_owned())).into(), &Options::default());
    let text = &import.files["a"];
    assert!(text.contains("{% block y %}2{% endblock %}") && !text.contains("1") && !text.contains("3"), "{text}");
    assert_eq!(text.matches("{% block").count() - text.matches("this block: {% block").count(), 1, "{text}");
    let named: Vec<&str> = import.findings.iter().filter(|f| f.file == "a").map(|f| f.source.as_str()).collect();
    assert_eq!(named, ["{% block x %}", "{% block w %}"]);
    assert!(import.files["d"].contains("{% block x %}4{% endblock %}"), "its parent is unknown");
}

#[test]
fn text_never_becomes_a_tag() {
    assert_eq!(tera("a { b }} {{\n{%\n {"), "a { b }} {{ \"{{\" }}\n{{ \"{\" }}%\n {{ \"{\" }}");
    assert_eq!(tera("{% verbatim %}{{ x }}{% endverbatim %}"), "{{ \"{{\" }} x }}");
    assert_eq!(tera("{#- a -#}b"), "{# - a - #}b");
}

#[test]
fn a_folder_is_not_written_into_itself() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("django");
    std::fs::create_dir(&source).unwrap();
    let import = |out: &std::path::Path| folder::import(&source, out, false, &Options::default(), &write);
    assert!(matches!(import(&dir.path().join("out")), Err(folder::ImportError::Empty { .. })));
    std::fs::write(source.join("a.txt"), "{{ a }}").unwrap();
    for out in [source.clone(), source.join("deep/er"), dir.path().to_owned()] {
        assert!(matches!(import(&out), Err(folder::ImportError::Nested { .. })), "{}", out.display());
    }
    import(&dir.path().join("out")).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("out/a.txt")).unwrap(), "{{ a | text }}");
    assert!(matches!(import(&dir.path().join("out")), Err(folder::ImportError::Exists { .. })));
}

#[test]
fn replacements_of_custom_tags_are_written_and_stubs_are_reported() {
    let text = "{% load x %}{% site 1 %}{% user as u %}{% base %}{{ a|money|upper }}\n{% box %}in{% endbox %}{% hook a as h %}{{ b|frob:1 }}\
                {% filter frob %}f{% endfilter %}";
    let tags = [
        ("site", Tag::Text("<b>".to_owned())),
        ("user", Tag::Value("user.name".to_owned())),
        ("base", Tag::Setting("base-url".to_owned())),
    ];
    let options = Options {
        stub: true,
        tags: tags.map(|(name, tag)| (name.to_owned(), tag)).into(),
        filters: [("money".to_owned(), "floatformat:2".to_owned())].into(),
    };
    let import = import(&[("a.html".to_owned(), text.to_owned())].into(), &options);
    assert_eq!(
        import.files["a.html"],
        "{{ \"<b>\" | safe }}{% set u = user?.name | default(value=\"\") %}{{ setting(name=\"base-url\") }}\
         {{ a | floatformat(digits=2) | django_upper }}\n{# stub: {% box %} #}in{# stub: {% hook a as h %} #}{% set h = \"\" %}{{ b | text }}f"
    );
    let stubs: Vec<(usize, Severity, &str)> =
        import.findings.iter().map(|f| (f.line, f.severity, f.source.as_str())).collect();
    let stub = |source| (2, Severity::Stub, source);
    let expected = ["{% box %}", "{% hook a as h %}", "{{ b|frob:1 }}", "{% filter frob %}"].map(stub);
    assert_eq!(stubs, expected);
    let divided = import_one("{% may x %}a{% else %}b{% endmay %}{% endnothing %}");
    let left: Vec<&str> = divided.findings.iter().map(|f| f.source.as_str()).collect();
    assert_eq!(left, ["{% may x %}", "{% else %}", "{% endnothing %}"]);
}

#[test]
fn routes_are_listed_with_their_arguments() {
    let import = import_one("{% url 'a' %}{% url 'b' 1 x %}{% url 'b' pk=1 %}{% url name %}{% url 'c' as c %}");
    assert!(import.findings.is_empty(), "{:?}", import.findings);
    let routes: Vec<String> = import.routes.iter().map(|(name, forms)| format!("{name} {forms:?}")).collect();
    assert_eq!(routes, ["a {\"\"}", "b {\"{pk}\", \"{value1} {value2}\"}", "c {\"\"}"]);
}

/// Writes a file as the command line does, but without protection against power failures.
fn write(file: &std::path::Path, text: &[u8]) -> std::io::Result<()> {
    std::fs::write(file, text)
}

/// A folder of files, imported.
fn import_folder(
    files: &[(&str, &[u8])],
    before: impl FnOnce(&std::path::Path),
) -> (tempfile::TempDir, folder::Imported) {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let file = dir.path().join("in").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }
    before(&dir.path().join("in"));
    let (source, out) = (dir.path().join("in"), dir.path().join("out"));
    let imported = folder::import(&source, &out, false, &Options::default(), &write).unwrap();
    (dir, imported)
}

#[test]
fn an_unreadable_file_does_not_affect_the_others() {
    let large = vec![b'x'; (1 << 20) + 1];
    let files: [(&str, &[u8]); 4] = [
        ("good.html", b"{{ a }}"),
        ("large.txt", &large),
        ("latin.html", b"\xe9"),
        ("app/locale/fr/LC_MESSAGES/django.po", b"msgid \"a\"\nmsgstr \"b\"\n"),
    ];
    let (dir, imported) = import_folder(&files, |source| {
        std::os::unix::fs::symlink("nowhere", source.join("dangling.html")).unwrap();
        std::os::unix::fs::symlink(".", source.join("around")).unwrap();
    });
    let unread: BTreeMap<&str, &str> = imported
        .import
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Unreadable)
        .map(|finding| (finding.file.as_str(), finding.reason.as_str()))
        .collect();
    assert_eq!(unread["large.txt"], "it is larger than 1 MiB");
    assert!(
        unread["latin.html"].contains("not UTF-8") && unread["dangling.html"].contains("cannot be read"),
        "{unread:?}"
    );
    assert!(unread.values().any(|why| why.contains("nested more than 16 deep")), "{unread:?}");
    assert!(dir.path().join("out/good.html").exists());
    assert!(dir.path().join("out/app/locale/fr/LC_MESSAGES/django.po").exists());
}

#[test]
fn catalogues_of_the_django_domain_are_copied_from_any_folder() {
    let large = [b"msgid \"a\"\nmsgstr \"".as_slice(), &vec![b'x'; 3 << 20], b"\"\n"].concat();
    let too_large = vec![b'#'; (16 << 20) + 1];
    let files: [(&str, &[u8]); 6] = [
        ("ar/LC_MESSAGES/django.po", &large),
        ("ar/LC_MESSAGES/djangojs.po", b""),
        ("deep/down/app/locale/fr/LC_MESSAGES/django.po", b"1"),
        ("else/where/app/locale/fr/LC_MESSAGES/django.po", b"2"),
        ("locale/de/LC_MESSAGES/django.po", b"3"),
        ("locale/ka/LC_MESSAGES/django.po", &too_large),
    ];
    let (dir, imported) = import_folder(&files, |_| {});
    assert_eq!(
        imported.catalogs,
        [
            "app/locale/fr/LC_MESSAGES/django.po",
            "else-where-app/locale/fr/LC_MESSAGES/django.po",
            "locale/ar/LC_MESSAGES/django.po",
            "locale/de/LC_MESSAGES/django.po",
        ]
    );
    assert_eq!(imported.others, ["ar/LC_MESSAGES/djangojs.po"]);
    assert_eq!(std::fs::read(dir.path().join("out/locale/ar/LC_MESSAGES/django.po")).unwrap(), large);
    let said: Vec<String> = imported.import.findings.iter().map(Finding::to_string).collect();
    assert!(
        matches!(said.as_slice(), [one] if one.starts_with("locale/ka/LC_MESSAGES/django.po: not read: it is larger")),
        "{said:?}"
    );
}

#[test]
fn referenced_files_of_any_extension_are_imported_and_missing_ones_are_reported() {
    let files: [(&str, &[u8]); 5] = [
        (
            "mail/a.html",
            b"{% include './style.css' %}{% include 'missing.html' %}{% with t='c.tpl' %}{% include t %}{% endwith %}",
        ),
        ("mail/style.css", b"{% include 'vars.scss' %}"),
        ("vars.scss", b"x"),
        ("c.tpl", b"{{ y }}"),
        ("logo.png", b"\xff"),
    ];
    let (dir, imported) = import_folder(&files, |_| {});
    assert_eq!(
        imported.import.files.keys().collect::<Vec<_>>(),
        ["c.tpl", "mail/a.html", "mail/style.css", "vars.scss"]
    );
    assert_eq!(imported.others, ["logo.png"]);
    let left: Vec<&str> = imported.import.findings.iter().map(|finding| finding.reason.as_str()).collect();
    assert_eq!(left, ["missing.html is not among the imported files"]);
    // It exists if it was imported before.
    std::fs::write(dir.path().join("out/missing.html"), "").unwrap();
    let again =
        folder::import(&dir.path().join("in"), &dir.path().join("out"), true, &Options::default(), &write).unwrap();
    assert_eq!(again.import.findings, []);
}

#[test]
fn an_error_contains_its_reason_once() {
    let error =
        folder::import("/nowhere/at/all".as_ref(), "/tmp/x".as_ref(), false, &Options::default(), &write).unwrap_err();
    let said = format!("{:#}", anyhow::Error::from(error));
    assert_eq!(said, "cannot read /nowhere/at/all: No such file or directory (os error 2)");
}

proptest! {
    #[test]
    fn no_text_stops_the_importer(text in "(\\{%|%\\}|\\{\\{|\\}\\}|\\{#|#\\}| |\n|[a-z'\"|:._=,()-]|if|for|in|else|end|with|block|trans|é){0,60}") {
        let import = import_one(&text);
        prop_assert_eq!(import.files.len(), 1);
    }

    #[test]
    fn any_string_can_be_imported(text in any::<String>()) {
        import_one(&text);
    }
}
