//! JSON text as a [`Value`]. As serde_json reads it, but an object gets room for its keys at once: growing it step by step
//! takes a quarter of the time.
//!
//! How many they will be is guessed: a message has a dozen and its context some more, what is inside has half as many, and one
//! object after the other in a list as many as the one before. So room is never much more than what is there.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use super::Object;

/// Keys of a document; those of its objects are guessed to be half of that.
const KEYS_USUAL: usize = 28;
/// Objects in one object that are taken for usual ones.
const USUAL_MAX: usize = 16;

/// Reads one document, with nothing after it but whitespace.
pub(super) fn read(json: &[u8]) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = Reader { keys: KEYS_USUAL }.deserialize(&mut deserializer)?;
    deserializer.end().map(|()| value)
}

struct Reader {
    /// Of an object that begins here.
    keys: usize,
}

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let (mut array, mut keys) = (Vec::new(), self.keys);
        while let Some(item) = items.next_element_seed(Reader { keys })? {
            keys = keys_like(&item).unwrap_or(keys);
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let (mut object, mut keys) = (Object::new(), self.keys / 2);
        while let Some(key) = entries.next_key::<String>()? {
            if object.is_empty() {
                object = Object::with_capacity(self.keys);
            }
            let value = entries.next_value_seed(Reader { keys })?;
            if object.len() >= USUAL_MAX {
                keys = keys_like(&value).unwrap_or(keys);
            }
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

/// How many keys another object like this one has.
fn keys_like(value: &Value) -> Option<usize> {
    value.as_object().map(Object::len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn same(json: &[u8]) -> Result<(), TestCaseError> {
        match (read(json), serde_json::from_slice::<Value>(json)) {
            // The order of keys counts, which `==` does not look at.
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours.to_string(), theirs.to_string()),
            (Err(ours), Err(theirs)) => prop_assert_eq!(ours.to_string(), theirs.to_string()),
            (ours, theirs) => prop_assert!(false, "{:?} and {:?}", ours, theirs),
        }
        Ok(())
    }

    #[test]
    fn it_is_what_serde_json_reads() {
        let table: [&[u8]; 12] = [
            b"{\"b\":1,\"a\":[{},[],null,true,false],\"b\":2}",
            b"[0,-1,18446744073709551615,18446744073709551616,-9223372036854775808,1e3,0.1,-0.0]",
            b"\"\\u00e9\\n\\ud83d\\ude00\" ",
            b"1e400",
            b"{\"a\":1}x",
            b"{\"a\":1,}",
            b"{\"a\":NaN}",
            b"{1:2}",
            b"",
            b"\"\\ud800\"",
            b"[1,2",
            b"\"\xff\"",
        ];
        for json in table {
            same(json).unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(json)));
        }
        let deep = "[".repeat(200);
        same(deep.as_bytes()).expect("both refuse what is nested too deep");
    }

    proptest! {
        #[test]
        fn whatever_it_is(json in "[\\[\\]{}\",: 0-9a-eu.+\\\\-]{0,30}|(\\{\"a\":|\\[|1|-2.5e3|\"b\"|null|,|\\}|\\]|\"c\":){0,12}") {
            same(json.as_bytes())?;
        }
    }
}
