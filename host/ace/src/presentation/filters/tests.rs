use serde_json::json;
use tera::Value;

use super::{python, unescaped};
use crate::message::TemplateFile;
use crate::presentation::tests::support::{Folders, hello, render};

#[test]
fn values_are_formatted_as_in_python() {
    let value = |json: serde_json::Value| Value::from_serializable(&json);
    let text = |json: serde_json::Value| python::text(&value(json));
    assert_eq!(text(json!(null)), "None");
    assert_eq!(text(json!(true)), "True");
    assert_eq!(text(json!("it's")), "it's");
    assert_eq!(
        text(json!(["it's", "\"", 1, 1.5, null, {"b": [], "a": "\n"}])),
        r#"["it's", '"', 1, 1.5, None, {'b': [], 'a': '\n'}]"#
    );
    assert_eq!(python::text(&Value::undefined()), "");
    let floats = [(1.0, "1.0"), (1e16, "1e+16"), (1e15, "1000000000000000.0"), (0.0001, "0.0001"), (0.00001, "1e-05")];
    for (number, expected) in floats {
        assert_eq!(python::float(number), expected);
    }
}

#[test]
fn integers_are_parsed_as_in_python() {
    let read = |json: serde_json::Value| python::int(&Value::from_serializable(&json));
    assert_eq!(read(json!(" -7 ")), Some(-7));
    assert_eq!(read(json!("1_000")), Some(1000));
    assert_eq!(read(json!(2.9)), Some(2));
    assert_eq!(read(json!(true)), Some(1));
    assert_eq!(["", "-", "1.5", "1__0", "_1", "x"].map(|text| read(json!(text))), [None; 6]);
}

#[test]
fn json_encode_writes_json_which_html_escapes() {
    let folders = Folders::new();
    let template =
        "[{{ nothing | json_encode }},{{ missing | json_encode }},{{ text | json_encode }},{{ list | json_encode }}]";
    let context = json!({"nothing": null, "text": "a \"b\" <c> & \\ \n", "list": [1, 1.5, true, {"it's": []}]});
    let expected = r#"[null,null,"a \"b\" <c> & \\ \n",[1,1.5,true,{"it's":[]}]]"#;
    let names = ["body.txt", "body.json", "body.html"];
    for name in names {
        folders.hello(name, template);
    }
    let rendered =
        render(&folders.load(&["a"]), &hello(context), &names.map(TemplateFile::required)).expect("rendered");
    let texts: Vec<&str> = rendered.iter().map(|file| file.text.as_str()).collect();
    assert_eq!(texts[..2], [expected; 2]);
    assert_eq!(unescaped(texts[2]), expected);
    assert!(texts[2].contains("&quot;a \\&quot;b\\&quot; &lt;c&gt; &amp; "), "{}", texts[2]);
}
