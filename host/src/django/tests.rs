use proptest::prelude::*;

use super::*;

fn import_one(text: &str) -> Import {
    import(&BTreeMap::from([("a.html".to_owned(), text.to_owned())]))
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
fn what_cannot_be_translated_is_named_and_stays_marked() {
    let import = import_one("a\n{% url 'home' %}\n{{ x|frob }}{% if a b %}c{% endif %}{% endfor %}");
    let said: Vec<(usize, &str)> = import.findings.iter().map(|f| (f.line, f.source.as_str())).collect();
    assert_eq!(said, [(2, "{% url 'home' %}"), (3, "{{ x|frob }}"), (3, "{% if a b %}"), (3, "{% endfor %}")]);
    assert!(import.findings.iter().all(|f| f.weight == Weight::Left && !f.suggestion.is_empty()));
    let text = &import.files["a.html"];
    assert_eq!(text.matches("{# not translated: ").count(), 4, "{text}");
    assert!(text.contains("{# not translated: {% url 'home' %} #}"), "{text}");
    assert!(text.contains("{% if false %}c{% endif %}"), "{text}");
}

#[test]
fn what_django_refuses_is_named_and_the_rest_is_a_template() {
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
        let import = import_one(text);
        let left: Vec<_> =
            import.findings.iter().filter(|f| f.weight == Weight::Left).map(|f| f.source.as_str()).collect();
        assert_eq!(left, [stray]);
        assert_eq!(import.files["a.html"], written);
    }
}

#[test]
fn a_block_that_no_file_above_has_is_named_and_ignored_as_django_does() {
    let files = [
        (
            "a",
            "{% extends 'b' %}{% block x %}1{% block y %}2{% endblock %}{% endblock %}{% if z %}{% block w %}3{% endblock %}{% endif %}",
        ),
        ("b", "{% extends 'c' %}"),
        ("c", "{% block y %}{% endblock %}"),
        ("d", "{% extends 'elsewhere' %}{% block x %}4{% endblock %}"),
    ];
    let import = import(&files.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
    let text = &import.files["a"];
    assert!(text.contains("{% block y %}2{% endblock %}") && !text.contains("1") && !text.contains("3"), "{text}");
    assert_eq!(text.matches("{% block").count() - text.matches("this block: {% block").count(), 1, "{text}");
    let named: Vec<&str> = import.findings.iter().filter(|f| f.file == "a").map(|f| f.source.as_str()).collect();
    assert_eq!(named, ["{% block x %}", "{% block w %}"]);
    assert!(import.files["d"].contains("{% block x %}4{% endblock %}"), "who knows what stands there");
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
    let import = |out: &std::path::Path| folder::import(&source, out, false);
    assert!(matches!(import(&dir.path().join("out")), Err(folder::ImportError::Empty { .. })));
    std::fs::write(source.join("a.txt"), "{{ a }}").unwrap();
    for out in [source.clone(), source.join("deep/er"), dir.path().to_owned()] {
        assert!(matches!(import(&out), Err(folder::ImportError::Nested { .. })), "{}", out.display());
    }
    import(&dir.path().join("out")).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("out/a.txt")).unwrap(), "{{ a | text }}");
    assert!(matches!(import(&dir.path().join("out")), Err(folder::ImportError::Exists { .. })));
}

proptest! {
    #[test]
    fn no_text_stops_the_importer(text in "(\\{%|%\\}|\\{\\{|\\}\\}|\\{#|#\\}| |\n|[a-z'\"|:._=,()-]|if|for|in|else|end|with|block|trans|é){0,60}") {
        let import = import_one(&text);
        prop_assert_eq!(import.files.len(), 1);
    }

    #[test]
    fn nor_any_bytes(text in any::<String>()) {
        import_one(&text);
    }
}
