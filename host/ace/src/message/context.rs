//! A message's context: JSON text, of which a part is read when someone asks for it. Most of a context passes through the host
//! untouched, from the request to the disk and from there into the templates.

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

/// A context that is read has room for so many bytes at once.
const BYTES_USUAL: usize = 4 << 10;

/// A JSON object as text, compact and sound, with the places of its values.
#[derive(Clone)]
pub struct Context {
    json: String,
    /// A key that is there twice has its last value.
    values: Vec<(Box<str>, Range<usize>)>,
}

impl Context {
    /// An object without keys.
    pub fn new() -> Self {
        Context { json: "{}".to_owned(), values: Vec::new() }
    }

    /// Of keys and their values as JSON text, as another one has them.
    pub(super) fn of(entries: &[(&str, &str)]) -> Self {
        let room = entries.iter().map(|(key, value)| key.len() + value.len() + r#""":,"#.len()).sum::<usize>();
        let mut writing = Writing::new(room + "{}".len());
        for (key, value) in entries {
            writing.push(key, |json| json.write_all(value.as_bytes())).expect("a text is written to memory");
        }
        writing.end()
    }

    /// The whole, as JSON text.
    pub fn as_json(&self) -> &str {
        &self.json
    }

    /// Keys and their values as JSON text, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, place)| (&**key, &self.json[place.clone()]))
    }

    /// Whether there is such a key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key as JSON text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.iter().rev().find(|(known, _)| **known == *key).map(|(_, place)| &self.json[place.clone()])
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<Value> {
        self.get(key).and_then(|json| serde_json::from_str(json).ok())
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into().to_string());
        *self = self.laid(&Context::of(&[(&key, &value)]));
    }

    /// Takes a key out; its value, where it was there.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let value = self.value(key)?;
        let others: Vec<(&str, &str)> = self.iter().filter(|(known, _)| *known != key).collect();
        *self = Context::of(&others);
        Some(value)
    }

    /// With another one's keys laid over it: a value that both have is the other's, whole.
    pub fn laid(&self, over: &Context) -> Context {
        let mut entries: Vec<(&str, &str)> = Vec::with_capacity(self.values.len() + over.values.len());
        let places: HashMap<&str, usize> = self.iter().map(|(key, _)| key).zip(0..).collect();
        entries.extend(self.iter());
        for (key, value) in over.iter() {
            match places.get(key) {
                Some(place) => entries[*place].1 = value,
                None => entries.push((key, value)),
            }
        }
        Context::of(&entries)
    }

    /// All of it, read.
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
        let mut writing = Writing::new(0);
        for (key, value) in &object {
            let written = writing.push(key, |json| serde_json::to_writer(json, value));
            written.expect("a value has only string keys and finite numbers");
        }
        writing.end()
    }
}

impl PartialEq for Context {
    /// The order of keys does not count.
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json || json::comparable(&self.json) == json::comparable(&other.json)
    }
}

impl Serialize for Context {
    /// To JSON text alone.
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
    /// From JSON text: every value is looked at, and written in one form. Whole numbers keep their digits, however many.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Reader { is_ours: false }.deserialize(d)
    }
}

/// Reads a context.
#[derive(Clone, Copy)]
pub(super) struct Reader {
    /// It was written by [`Context`] before: its values are copied as they stand.
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
        let mut writing = Writing::new(BYTES_USUAL);
        while let Some(key) = entries.next_key::<Cow<str>>()? {
            let value: &RawValue = entries.next_value()?;
            if self.is_ours {
                writing.push(&key, |out| out.write_all(value.get().as_bytes())).map_err(A::Error::custom)?
            } else {
                writing.push(&key, |out| json::compact(value.get(), out)).map_err(A::Error::custom)?
            }
        }
        Ok(writing.end())
    }
}

/// A context that is being written.
struct Writing {
    json: Vec<u8>,
    values: Vec<(Box<str>, Range<usize>)>,
}

impl Writing {
    fn new(room: usize) -> Self {
        let mut json = Vec::with_capacity(room);
        json.push(b'{');
        Writing { json, values: Vec::new() }
    }

    /// Adds a key behind the others, and what `write` writes as its value.
    fn push<E>(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        if !self.values.is_empty() {
            self.json.push(b',');
        }
        serde_json::to_writer(&mut self.json, key).expect("a text is written to memory");
        self.json.push(b':');
        let begin = self.json.len();
        write(&mut self.json)?;
        self.values.push((key.into(), begin..self.json.len()));
        Ok(())
    }

    fn end(mut self) -> Context {
        self.json.push(b'}');
        let json = String::from_utf8(self.json).expect("what is written is UTF-8");
        Context { json, values: self.values }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// As a value it says what serde_json reads, and refuses what that refuses.
    fn same(json: &str) -> Result<(), TestCaseError> {
        let (ours, theirs) = (serde_json::from_str::<Context>(json), serde_json::from_str::<Object>(json));
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}: {:?}, {:?}", json, ours, theirs);
        let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return Ok(()) };
        let written = |object: &Object| Value::from(object.clone()).to_string().replace("-0.0", "0");
        prop_assert_eq!(written(&ours.to_object()), written(&theirs));
        prop_assert_eq!(serde_json::from_str::<Object>(ours.as_json()).ok(), Some(theirs.clone()));
        for (key, value) in &theirs {
            prop_assert_eq!(ours.value(key), Some(value.clone()));
        }
        let mut again = serde_json::Deserializer::from_str(ours.as_json());
        let again = Reader { is_ours: true }.deserialize(&mut again).expect("what it wrote it reads");
        prop_assert_eq!((again.as_json(), &again.values), (ours.as_json(), &ours.values));
        let has_twice = ours.iter().count() > theirs.len();
        let has_long = json.contains("18446744073709551616");
        let (ours, theirs) =
            (ours.as_json().replace("-0.0", "0"), Context::from(theirs).as_json().replace("-0.0", "0"));
        prop_assert!(has_twice || has_long || ours == theirs);
        Ok(())
    }

    #[test]
    fn it_is_what_serde_json_reads() {
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
        same(&deep).expect("both refuse what is nested too deep");
    }

    #[test]
    fn keys_are_set_and_taken_out() {
        let mut context = Context::new();
        context.insert("a", 1);
        context.insert("b", json!({"c": ["x"]}));
        context.insert("a", "\"");
        assert_eq!(context.as_json(), r#"{"a":"\"","b":{"c":["x"]}}"#);
        assert_eq!((context.remove("a"), context.remove("a")), (Some(json!("\"")), None));
        assert_eq!((context.get("b"), context.contains_key("a")), (Some(r#"{"c":["x"]}"#), false));
    }

    #[test]
    fn digits_tell_long_numbers_apart() {
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
        fn whatever_it_is(inner in "[\\[\\]{}\",: 0-9a-eu.+\\\\-]{0,30}|(\"a\":|\\[|1|-2.5e3|\"b\":|null|,|\\]|\"c\"|\\{\\}){0,12}") {
            same(&format!("{{{inner}}}"))?;
        }
    }
}
