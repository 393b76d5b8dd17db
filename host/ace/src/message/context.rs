//! A message's context: JSON text whose values are parsed only on access. Most of a context passes through the host unparsed, from
//! the request to the database and from there to the templates.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::ops::Range;

use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Object, json};

/// The initial size of a decoded context.
const BYTES_USUAL: usize = 4 << 10;

/// A JSON object as compact, valid text, with the ranges of its values.
#[derive(Clone)]
pub struct Context {
    json: String,
    /// The last value of a duplicate key counts.
    values: Vec<(Box<str>, Range<usize>)>,
}

impl Context {
    /// An empty object.
    pub fn new() -> Self {
        Context { json: "{}".to_owned(), values: Vec::new() }
    }

    /// From keys and values in JSON, in the form of another context.
    pub(super) fn of(entries: &[(&str, &str)]) -> Self {
        let size = entries.iter().map(|(key, value)| key.len() + value.len() + r#""":,"#.len()).sum::<usize>();
        let mut writer = Writer::new(size + "{}".len());
        for (key, value) in entries {
            writer.push(key, |json| json.write_all(value.as_bytes())).expect("writing to memory does not fail");
        }
        writer.end()
    }

    /// The whole context as JSON.
    pub fn as_json(&self) -> &str {
        &self.json
    }

    /// Keys and values in JSON, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, range)| (&**key, &self.json[range.clone()]))
    }

    /// Whether it has this key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key in JSON.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.iter().rev().find(|(known, _)| **known == *key).map(|(_, range)| &self.json[range.clone()])
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<Value> {
        self.get(key).and_then(|json| serde_json::from_str(json).ok())
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into().to_string());
        *self = self.merged(&Context::of(&[(&key, &value)]));
    }

    /// Removes a key and returns its value, if it has one.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let value = self.value(key)?;
        let others: Vec<(&str, &str)> = self.iter().filter(|(known, _)| *known != key).collect();
        *self = Context::of(&others);
        Some(value)
    }

    /// A copy with the keys of another context, which replace its own. Values are not merged.
    pub fn merged(&self, over: &Context) -> Context {
        let mut entries: Vec<(&str, &str)> = Vec::with_capacity(self.values.len() + over.values.len());
        let indices: HashMap<&str, usize> = self.iter().map(|(key, _)| key).zip(0..).collect();
        entries.extend(self.iter());
        for (key, value) in over.iter() {
            match indices.get(key) {
                Some(index) => entries[*index].1 = value,
                None => entries.push((key, value)),
            }
        }
        Context::of(&entries)
    }

    /// The parsed context.
    pub fn to_object(&self) -> Object {
        self.iter().map(|(key, json)| (key.to_owned(), serde_json::from_str(json).unwrap_or_default())).collect()
    }
}

impl Default for Context {
    fn default() -> Self {
        Context::new()
    }
}

impl From<Object> for Context {
    fn from(object: Object) -> Self {
        let mut writer = Writer::new(0);
        for (key, value) in &object {
            let result = writer.push(key, |json| serde_json::to_writer(json, value));
            result.expect("a value has only string keys and finite numbers");
        }
        writer.end()
    }
}

impl PartialEq for Context {
    /// Ignores the order of keys.
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json || json::comparable(&self.json) == json::comparable(&other.json)
    }
}

impl Serialize for Context {
    /// Works only with serde_json.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.json).map_err(serde::ser::Error::custom)?;
        raw.serialize(s)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.json)
    }
}

impl<'de> Deserialize<'de> for Context {
    /// Validates and normalizes JSON. Integers of any length keep their digits.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Reader { is_ours: false }.deserialize(d)
    }
}

/// Decodes a context.
#[derive(Clone, Copy)]
pub(super) struct Reader {
    /// Whether [`Context`] wrote the JSON. Then values are copied without normalizing them.
    pub is_ours: bool,
}

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Context;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Context, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Context;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Context, A::Error> {
        let mut writer = Writer::new(BYTES_USUAL);
        while let Some(key) = entries.next_key::<Cow<str>>()? {
            let value: &RawValue = entries.next_value()?;
            if self.is_ours {
                writer.push(&key, |out| out.write_all(value.get().as_bytes())).map_err(A::Error::custom)?
            } else {
                writer.push(&key, |out| json::compact(value.get(), out)).map_err(A::Error::custom)?
            }
        }
        Ok(writer.end())
    }
}

/// Writes a context.
struct Writer {
    json: Vec<u8>,
    values: Vec<(Box<str>, Range<usize>)>,
}

impl Writer {
    fn new(capacity: usize) -> Self {
        let mut json = Vec::with_capacity(capacity);
        json.push(b'{');
        Writer { json, values: Vec::new() }
    }

    /// Appends a key, and the value that `write` writes.
    fn push<E>(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        if !self.values.is_empty() {
            self.json.push(b',');
        }
        serde_json::to_writer(&mut self.json, key).expect("writing to memory does not fail");
        self.json.push(b':');
        let start = self.json.len();
        write(&mut self.json)?;
        self.values.push((key.into(), start..self.json.len()));
        Ok(())
    }

    fn end(mut self) -> Context {
        self.json.push(b'}');
        let json = String::from_utf8(self.json).expect("JSON is UTF-8");
        Context { json, values: self.values }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Accepts and rejects the same texts as serde_json, with equal values.
    fn same(json: &str) -> Result<(), TestCaseError> {
        let (ours, theirs) = (serde_json::from_str::<Context>(json), serde_json::from_str::<Object>(json));
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}: {:?}, {:?}", json, ours, theirs);
        let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return Ok(()) };
        let normalized = |object: &Object| Value::from(object.clone()).to_string().replace("-0.0", "0");
        prop_assert_eq!(normalized(&ours.to_object()), normalized(&theirs));
        prop_assert_eq!(serde_json::from_str::<Object>(ours.as_json()).ok(), Some(theirs.clone()));
        for (key, value) in &theirs {
            prop_assert_eq!(ours.value(key), Some(value.clone()));
        }
        let mut again = serde_json::Deserializer::from_str(ours.as_json());
        let again = Reader { is_ours: true }.deserialize(&mut again).expect("its own output is valid");
        prop_assert_eq!((again.as_json(), &again.values), (ours.as_json(), &ours.values));
        let has_twice = ours.iter().count() > theirs.len();
        let has_long = json.contains("18446744073709551616");
        let (ours, theirs) =
            (ours.as_json().replace("-0.0", "0"), Context::from(theirs).as_json().replace("-0.0", "0"));
        prop_assert!(has_twice || has_long || ours == theirs);
        Ok(())
    }

    #[test]
    fn it_equals_the_result_of_serde_json() {
        let table = [
            r#" { "b" : 1 , "a" : [ { } , [ ] , null , true , false ] , "b" : 2 } "#,
            r#"{"a":[0,-1,18446744073709551615,18446744073709551616,-9223372036854775808,1e3,0.1,-0.0]}"#,
            r#"{"\u00e9\"\n":"\u00e9\n\ud83d\ude00\/"}"#,
            r#"{"a":1e400}"#,
            r#"{"a":1}x"#,
            r#"{"a":1,}"#,
            r#"{"a":NaN}"#,
            r#"{1:2}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"\ud800":1}"#,
            r#"{"a":[1,2"#,
            "[]",
            "null",
            "",
        ];
        for json in table {
            same(json).unwrap_or_else(|e| panic!("{json}: {e}"));
        }
        let deep = format!("{{\"a\":{}", "[".repeat(200));
        same(&deep).expect("both reject deep nesting");
    }

    #[test]
    fn keys_can_be_inserted_and_removed() {
        let mut context = Context::new();
        context.insert("a", 1);
        context.insert("b", json!({"c": ["x"]}));
        context.insert("a", "\"");
        assert_eq!(context.as_json(), r#"{"a":"\"","b":{"c":["x"]}}"#);
        assert_eq!((context.remove("a"), context.remove("a")), (Some(json!("\"")), None));
        assert_eq!((context.get("b"), context.contains_key("a")), (Some(r#"{"c":["x"]}"#), false));
    }

    #[test]
    fn long_numbers_are_compared_by_their_digits() {
        let read = |json: &str| serde_json::from_str::<Context>(json).expect("an object");
        let one = read(r#"{"a":[18446744073709551616],"b":{"x":1,"y":2}}"#);
        assert_eq!(one.as_json(), r#"{"a":[18446744073709551616],"b":{"x":1,"y":2}}"#);
        assert_eq!(one, read(r#"{"b":{"y":2,"x":1.0e0},"a":[ 18446744073709551616 ]}"#.replace("1.0e0", "1").as_str()));
        assert_ne!(one, read(r#"{"a":[18446744073709551617],"b":{"x":1,"y":2}}"#));
        assert_ne!(read(r#"{"a":18446744073709551616}"#), read(r#"{"a":"18446744073709551616"}"#));
        let mut two = one.clone();
        two.insert("c", 1);
        assert_eq!(two.remove("b"), Some(json!({"x": 1, "y": 2})));
        assert_eq!(two.as_json(), r#"{"a":[18446744073709551616],"c":1}"#);
        assert_eq!(serde_json::to_string(&two).expect("JSON"), two.as_json());
    }

    proptest! {
        #[test]
        fn any_text_gives_the_result_of_serde_json(inner in "[\\[\\]{}\",: 0-9a-eu.+\\\\-]{0,30}|(\"a\":|\\[|1|-2.5e3|\"b\":|null|,|\\]|\"c\"|\\{\\}){0,12}") {
            same(&format!("{{{inner}}}"))?;
        }
    }
}
