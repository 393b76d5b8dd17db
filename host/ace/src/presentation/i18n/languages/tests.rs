//! Catalogues and the fallbacks of languages.

use super::*;

fn languages(files: &[(&str, &str)]) -> (Languages, Vec<String>) {
    let mut problems = Vec::new();
    let mut catalogs = Vec::new();
    for (language, text) in files {
        let (catalog, wrong) = Catalog::read(text);
        problems.extend(wrong.into_iter().map(|error| format!("{}: {}", error.line, error.message)));
        catalogs.extend(catalog.map(|catalog| ((*language).to_owned(), Arc::new(catalog))));
    }
    (Languages::new(catalogs, "en"), problems)
}

#[test]
fn a_language_falls_back_on_what_is_near_it_and_then_on_the_default() {
    let of = |text: &str| format!("msgid \"a\"\nmsgstr \"{text}\"\n\nmsgid \"only {text}\"\nmsgstr \"x\"\n");
    let (pt, pt_br, hant) = (of("pt"), of("pt-br"), of("hant"));
    let (languages, problems) = languages(&[("pt", &pt), ("pt-br", &pt_br), ("zh-hant", &hant)]);
    assert_eq!(problems, Vec::<String>::new());
    let text = |requested: &str, id: &str| languages.resolve(Some(requested)).language.text(None, id).to_owned();
    assert_eq!(text("pt_BR", "a"), "pt-br");
    assert_eq!(text("pt-br", "only pt"), "x");
    assert_eq!(text("pt-PT", "a"), "pt");
    assert_eq!(text("zh-TW", "a"), "hant");
    assert_eq!(text("en-GB", "a"), "a");
    let resolve = |requested: &str| {
        let resolved = languages.resolve(Some(requested));
        (resolved.language.code.clone(), resolved.note)
    };
    assert_eq!(resolve("pt-PT"), ("pt-pt".to_owned(), None));
    assert_eq!(resolve("en-GB"), ("en-gb".to_owned(), None));
    let note = "there is no catalogue for the language xx; en is used".to_owned();
    assert_eq!(resolve("xx"), ("en".to_owned(), Some(note)));
    let note = "\"no tag!\" is not a language; en is used".to_owned();
    assert_eq!(resolve("no tag!"), ("en".to_owned(), Some(note)));
    assert_eq!(languages.resolve(None).language.code, "en");
}

#[test]
fn without_catalogues_every_language_is_accepted() {
    let (languages, _) = languages(&[]);
    let resolved = languages.resolve(Some("FR_ca"));
    assert_eq!((resolved.language.code.as_str(), resolved.note), ("fr-ca", None));
}

#[test]
fn the_direction_is_that_of_the_language_and_its_script() {
    let (languages, _) = languages(&[]);
    let is_rtl = |code: &str| languages.resolve(Some(code)).language.is_right_to_left();
    assert!(["ar", "ar-dz", "he", "fa", "ur", "ku-arab"].into_iter().all(is_rtl));
    assert!(!["en", "pl", "ja", "ku", "ks-deva"].into_iter().any(is_rtl));
}

#[test]
fn a_fault_in_a_catalogue_is_a_problem_with_its_line_and_the_rest_is_used() {
    let text = "msgid \"\"\nmsgstr \"Plural-Forms: nplurals=3; plural=n%3;\\n\"\n\n\
                msgid \"one\"\nmsgid_plural \"many\"\nmsgstr[0] \"x\"\nmsgstr[1] \"y\"\n\n\
                msgid \"hi %(name)s\"\nmsgstr \"salut %(nom)s\"\n\n\
                #, fuzzy\nmsgid \"old\"\nmsgstr \"vieux\"\n\nmsgid \"yes\"\nmsgstr \"oui\"\n";
    let (languages, problems) = languages(&[("fr", text)]);
    assert_eq!(
        problems,
        [
            "4: the message has 2 plural forms, but Plural-Forms says 3",
            "9: the translation has %(nom)s, which the message does not have",
        ]
    );
    let french = languages.resolve(Some("fr")).language;
    assert_eq!((french.text(None, "yes"), french.text(None, "old")), ("oui", "old"));
    let (_, problems) = self::languages(&[("fr", "msgid \"\"\nmsgstr \"Plural-Forms: nplurals=9\\n\"\n")]);
    assert_eq!(problems, ["1: Plural-Forms: plural=EXPRESSION is missing"]);
}

#[test]
fn duplicates_malformed_placeholders_and_surplus_forms_affect_one_entry_at_most() {
    let head = "msgid \"\"\nmsgstr \"Plural-Forms: nplurals=2; plural=n>1;\\n\"\n\n";
    let text = format!(
        "{head}msgid \"a\"\nmsgstr \"1\"\n\nmsgid \"a\"\nmsgstr \"2\"\n\nmsgid \"a\"\nmsgstr \"1\"\n\n\
         msgid \"%(n)s x\"\nmsgstr \"% (n)s y\"\n\nmsgid \"%(n)s byte\"\nmsgid_plural \"%(n)s bytes\"\n\
         msgstr[0] \"%(n)s octet\"\nmsgstr[1] \"%(n)s octets\"\nmsgstr[2] \"\"\n\n\
         #~ msgid \"a\"\n#~ msgstr \"3\"\n\nmsgid \"b\"\nmsgid_plural \"bs\"\nmsgstr[0] \"B\"\nmsgstr[1] \"\"\n"
    );
    let (languages, problems) = languages(&[("fr", &text)]);
    assert_eq!(
        problems,
        [
            "7: duplicate message; the translation in line 4 is used",
            "13: the translation has `% (n)s`, which is not a placeholder; write it as in %(name)s",
        ]
    );
    let french = languages.resolve(Some("fr")).language;
    assert_eq!((french.text(None, "a"), french.text(None, "%(n)s x")), ("1", "%(n)s x"));
    let plural = |id, plural, n| french.plural(None, id, plural, Count::Whole(n));
    assert_eq!([0, 2].map(|n| plural("%(n)s byte", "%(n)s bytes", n)), ["%(n)s octet", "%(n)s octets"]);
    assert_eq!([1, 2].map(|n| plural("b", "bs", n)), ["B", "bs"]);
}

#[test]
fn a_faulty_plural_rule_affects_only_messages_with_plurals() {
    let text = "msgid \"\"\nmsgstr \"Plural-Forms: nplurals=2; plural=n;\\n\"\n\nmsgid \"a\"\nmsgstr \"1\"\n\n\
                msgid \"b\"\nmsgid_plural \"bs\"\nmsgstr[0] \"B\"\nmsgstr[1] \"Bs\"\n";
    let (languages, problems) = languages(&[("fr", text)]);
    assert_eq!(problems, ["1: Plural-Forms: the rule selects none of the 2 forms for n = 2"]);
    let french = languages.resolve(Some("fr")).language;
    assert_eq!((french.text(None, "a"), french.plural(None, "b", "bs", Count::Whole(2))), ("1", "bs"));
}

#[test]
fn equivalent_and_near_tags_find_each_others_catalogues() {
    let catalog = "msgid \"a\"\nmsgstr \"TAG\"\n";
    let found = |requested: &str, available: &[&str]| {
        let texts: Vec<_> = available.iter().map(|tag| (*tag, catalog.replace("TAG", tag))).collect();
        let texts: Vec<_> = texts.iter().map(|(tag, text)| (*tag, text.as_str())).collect();
        languages(&texts).0.resolve(Some(requested)).language.text(None, "a").to_owned()
    };
    for (requested, available, expected) in [
        ("zh-hans", &["zh-cn", "zh-tw"][..], "zh-cn"),
        ("zh-hant", &["zh-cn", "zh-tw"], "zh-tw"),
        ("zh-Hant-TW", &["zh-cn", "zh-tw"], "zh-tw"),
        ("zh-hant", &["zh-cn", "zh-hk"], "zh-hk"),
        ("zh-hk", &["zh-cn", "zh-tw"], "zh-tw"),
        ("zh-hant", &["zh-cn"], "a"),
        ("zh_CN", &["zh-hans"], "zh-hans"),
        ("zh", &["zh-cn", "zh-tw"], "zh-cn"),
        ("pt", &["pt-br", "pt-pt"], "pt-pt"),
        ("pt", &["pt-br"], "pt-br"),
        ("pt-ao", &["pt-br", "pt-pt"], "pt-pt"),
        ("no", &["nb"], "nb"),
        ("nb-no", &["no"], "no"),
        ("nn", &["nb"], "nb"),
        ("iw", &["he"], "he"),
        ("he-il", &["iw"], "iw"),
        ("tl", &["fil"], "fil"),
        ("tl-ph", &["fil"], "fil"),
        ("es-mx", &["es-419", "es-es"], "es-419"),
        ("de", &["fr"], "a"),
    ] {
        assert_eq!(found(requested, available), expected, "{requested} of {available:?}");
    }
    let dates = |tag: &str| languages(&[]).0.resolve(Some(tag)).language.conventions.word(None, "Monday");
    for (tag, same) in [("no", "nb"), ("iw", "he"), ("zh", "zh-hans"), ("zh-cn", "zh-hans"), ("zh-hk", "zh-hant")] {
        assert!(dates(tag).is_some() && dates(tag) == dates(same), "{tag}");
    }
}

#[test]
fn a_context_distinguishes_equal_texts() {
    let text = "msgid \"May\"\nmsgstr \"mai\"\n\nmsgctxt \"verb\"\nmsgid \"May\"\nmsgstr \"peut\"\n";
    let (languages, _) = languages(&[("fr", text)]);
    let french = languages.resolve(Some("fr")).language;
    assert_eq!((french.text(None, "May"), french.text(Some("verb"), "May")), ("mai", "peut"));
    assert_eq!(french.text(Some("name"), "May"), "May");
}
