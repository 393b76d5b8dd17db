//! Numbers as Python formats what its `json` parses. tests/python/make.py generates the golden file.

use super::*;
use crate::message::Message;

#[test]
fn numbers_are_formatted_as_in_python() {
    let folders = Folders::new();
    folders.hello("subject.txt", "{{ n }} {{ m.n }}{% for x in l %} {{ x }}{% endfor %} {{ n | default(value=1) }}");
    let presentation = folders.load(&["a"]);
    let golden: Value = serde_json::from_str(include_str!("../../../../../../tests/python/golden.json")).expect("JSON");
    for number in golden["numbers"].as_array().expect("numbers") {
        let [json, shown] = ["json", "shown"].map(|key| number[key].as_str().expect("text"));
        let context = format!(r#"{{"n": {json}, "m": {{"n": {json}}}, "l": [{json}]}}"#);
        let message = format!(r#"{{"app_label": "app", "name": "hello", "recipient": null, "context": {context}}}"#);
        let message = Message::from_json(message.as_bytes()).expect("a message");
        // Storing and loading changes nothing.
        let message = Message::from_own_json(message.to_json().as_bytes()).expect("what it wrote");
        let files = render(&presentation, &message, &[TemplateFile::required("subject.txt")]).expect("rendered");
        assert_eq!(files[0].text, format!("{shown} {shown} {shown} {shown}"), "{json}");
    }
}

#[test]
fn a_number_with_an_exponent_stays_a_number() {
    let folders = Folders::new();
    folders.hello("subject.txt", "{% if n > 0 and n < 1 %}{{ n * 10 }} {{ n }}{% endif %}");
    assert_eq!(folders.render("subject.txt", json!({"n": 1e-7})).as_deref(), Ok("1e-06 1e-07"));
    folders.hello("subject.txt", "{{ n }}\n{{ absent }}");
    let fault = |n: f64| folders.render("subject.txt", json!({"n": n})).expect_err("a variable is missing");
    let (plain, formatted) = (fault(1.5), fault(1e-7));
    assert!(plain.contains("subject.txt:2") && formatted.contains("subject.txt:2"), "{plain}; {formatted}");
    assert!(!formatted.contains("__python_number"), "{formatted}");
}
