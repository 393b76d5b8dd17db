use serde_json::json;
use tera::Value;

use super::python;

#[test]
fn values_are_written_as_python_writes_them() {
    let value = |json: serde_json::Value| Value::from_serializable(&json);
    let shown = |json: serde_json::Value| python::text(&value(json));
    assert_eq!(shown(json!(null)), "None");
    assert_eq!(shown(json!(true)), "True");
    assert_eq!(shown(json!("it's")), "it's");
    assert_eq!(
        shown(json!(["it's", "\"", 1, 1.5, null, {"b": [], "a": "\n"}])),
        r#"["it's", '"', 1, 1.5, None, {'b': [], 'a': '\n'}]"#
    );
    assert_eq!(python::text(&Value::undefined()), "");
    let floats = [(1.0, "1.0"), (1e16, "1e+16"), (1e15, "1000000000000000.0"), (0.0001, "0.0001"), (0.00001, "1e-05")];
    for (number, text) in floats {
        assert_eq!(python::float(number), text);
    }
}

#[test]
fn whole_numbers_are_read_as_python_reads_them() {
    let read = |json: serde_json::Value| python::int(&Value::from_serializable(&json));
    assert_eq!(read(json!(" -7 ")), Some(-7));
    assert_eq!(read(json!("1_000")), Some(1000));
    assert_eq!(read(json!(2.9)), Some(2));
    assert_eq!(read(json!(true)), Some(1));
    assert_eq!(["", "-", "1.5", "1__0", "_1", "x"].map(|text| read(json!(text))), [None; 6]);
}
