//! The files of Django projects: included files with any extension, catalogues, tables of routes.

mod python_numbers;

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config;
use crate::message::TemplateFile;
use crate::presentation::Presentation;
use crate::presentation::tests::support::{Folders, hello, render};

fn text_of(presentation: &Presentation, context: Value) -> Result<String, String> {
    let rendered = render(presentation, &hello(context), &[TemplateFile::required("body.txt")]);
    rendered.map(|files| files[0].text.clone()).map_err(|fault| fault.message)
}

#[test]
fn a_file_with_any_extension_is_a_template_if_one_includes_it() {
    let folders = Folders::new();
    folders
        .hello("body.txt", "{% include \"mail/style.css\" %}")
        .write("a/mail/style.css", "x{% include \"vars.scss\" %}");
    folders.write("a/vars.scss", "{{ color }}").write("a/logo.png", b"\xff").write("a/broken.css", "{% if %}");
    let dirs = [folders.0.path().join("a")];
    let before = Arc::new(folders.load(&["a"]));
    assert_eq!(before.problems(), []);
    assert_eq!(text_of(&before, json!({"color": "red"})).as_deref(), Ok("xred"));
    let settings = config::Presentation::default();
    assert!(Arc::ptr_eq(&before, &before.reload(&dirs, &settings)));
    folders.write("a/vars.scss", "{{ color }}!!");
    let changed = before.reload(&dirs, &settings);
    assert_eq!(text_of(&changed, json!({"color": "red"})).as_deref(), Ok("xred!!"));
    fs::remove_file(folders.0.path().join("a/vars.scss")).unwrap();
    let expected = "a/mail/style.css:1: includes `vars.scss`, which is in no template folder";
    let missing = folders.load(&["a"]);
    assert!(folders.problems(&missing).iter().any(|problem| problem.starts_with(expected)), "{:?}", missing.problems());
}

#[test]
fn a_theme_can_have_included_files_with_any_extension() {
    let folders = Folders::new();
    folders.hello("body.txt", "{% include \"style.css\" %}").write("a/style.css", "plain");
    folders.write("a/themes/dark/style.css", "dark");
    let presentation = folders.load(&["a"]);
    let mut message = hello(json!({}));
    message.options.insert("site".to_owned(), "dark".into());
    let files = [TemplateFile::required("body.txt")];
    assert_eq!(render(&presentation, &message, &files).unwrap()[0].text, "dark");
    assert_eq!(render(&presentation, &hello(json!({})), &files).unwrap()[0].text, "plain");
}

#[test]
fn catalogues_of_scripts_are_ignored() {
    let folders = Folders::new();
    folders.hello("body.txt", "{{ trans(message=\"yes\") }} {{ trans(message=\"no\") }}");
    folders.write("a/locale/fr/LC_MESSAGES/django.po", "msgid \"yes\"\nmsgstr \"\"\n\nmsgid \"no\"\nmsgstr \"non\"\n");
    folders.write("a/locale/fr/LC_MESSAGES/djangojs.po", "msgid \"yes\"\nmsgstr \"script\"\n");
    folders.write("a/locale/fr/LC_MESSAGES/djangojs-partial.po", "msgid \"yes\"\nmsgstr \"script\"\n");
    let mut message = hello(json!({}));
    message.language = Some("fr".to_owned());
    let rendered = render(&folders.load(&["a"]), &message, &[TemplateFile::required("body.txt")]).unwrap();
    assert_eq!(rendered[0].text, "yes non");
}

#[test]
fn catalogues_can_be_large_and_their_total_is_bounded() {
    let folders = Folders::new();
    let entry = |id: usize| format!("msgid \"{id:0>500}\"\nmsgstr \"{id:1>500}\"\n\n");
    let large: String = (0..2_500).map(entry).collect();
    assert!(large.len() > 2 << 20);
    folders.write("a/locale/ar/LC_MESSAGES/django.po", &large).write("a/locale/ru/LC_MESSAGES/django.po", &large);
    folders.write("a/locale/ka/LC_MESSAGES/django.po", vec![b'#'; (16 << 20) + 1]);
    let presentation = folders.load(&["a"]);
    let too_large = "a/locale/ka/LC_MESSAGES/django.po: is larger than 16 MiB, the maximum for such a file";
    assert_eq!(folders.problems(&presentation), [too_large]);
    assert_eq!(presentation.languages().into_iter().collect::<Vec<_>>(), ["ar", "ru"]);
    let settings = config::Presentation { max_catalog_bytes: 3 << 20, ..config::Presentation::default() };
    let presentation = Presentation::load(&[folders.0.path().join("a")], &settings);
    assert_eq!(presentation.languages().into_iter().collect::<Vec<_>>(), ["ar"]);
    let problems = folders.problems(&presentation);
    let expected = "a/locale/ru/LC_MESSAGES/django.po: is not used: all catalogues together would need more than 3MiB of memory; \
                    raise presentation.max-catalog-bytes";
    assert!(problems.contains(&expected.to_owned()), "{problems:?}");
}

#[test]
fn pages_are_found_in_tables_of_routes_and_the_first_one_wins() {
    let folders = Folders::new();
    folders.hello(
        "body.txt",
        "{{ url(name=\"home\") }} {{ url(name=\"item\", named={\"pk\": n}) }} {{ url(name=\"list\", or_empty=true) }}",
    );
    folders.write("a/routes.toml", "home = \"/a/\"\nitem = \"\"\nlist = false\n");
    folders.write("b/routes.toml", "home = \"/b/\"\nitem = [\"/b/\", \"/b/{pk}/\"]\n");
    assert_eq!(text_of(&folders.load(&["a", "b"]), json!({"n": 7})).as_deref(), Ok("/a/ /b/7/ "));
    let routes = config::Routes::read("home = \"/\"\n").unwrap();
    let settings = config::Presentation { routes, ..config::Presentation::default() };
    let dirs = ["a", "b"].map(|dir| folders.0.path().join(dir));
    let before = Arc::new(Presentation::load(&dirs, &settings));
    assert_eq!(text_of(&before, json!({"n": 7})).as_deref(), Ok("/ /b/7/ "));
    let empty = text_of(&before, json!({"n": ""})).unwrap_err();
    assert!(
        empty.contains("the page `item` has no route with these parameters; its routes are /b/, /b/{pk}/"),
        "{empty}"
    );
    folders.write("b/routes.toml", "item = \"b\"\n");
    let broken = before.reload(&dirs, &settings);
    assert_eq!(text_of(&broken, json!({"n": 8})).as_deref(), Ok("/ /b/8/ "), "the previous version stays in use");
    assert!(
        folders.problems(&broken)[0].starts_with("b/routes.toml:1: item: the path \"b\" does not start with a slash")
    );
    folders.write("b/routes.toml", "");
    let missing = folders.problems(&broken.reload(&dirs, &settings));
    let expected = "a/app/edx_ace/hello/email/body.txt:1: the page `item` has no route";
    assert!(matches!(missing.as_slice(), [one] if one.starts_with(expected)), "{missing:?}");
}
