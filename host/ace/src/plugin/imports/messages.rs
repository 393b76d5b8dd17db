//! `messages`: getters for the current message. A value is copied only when the guest asks for it.

use std::borrow::Cow;

use serde_json::Value;
use wasmtime::Result;
use wasmtime::component::Resource;

use crate::message::{Context, json};
use crate::plugin::runtime::bindings::common::Recipient;
use crate::plugin::runtime::bindings::messages::{Host, HostMessage};
use crate::plugin::runtime::state::{MessageHandle, State};

impl Host for State {}

impl HostMessage for State {
    fn uuid(&mut self, this: Resource<MessageHandle>) -> Result<String> {
        Ok(self.message(this.rep())?.uuid.to_string())
    }

    fn send_uuid(&mut self, this: Resource<MessageHandle>) -> Result<Option<String>> {
        Ok(self.message(this.rep())?.send_uuid.map(|u| u.to_string()))
    }

    fn app_label(&mut self, this: Resource<MessageHandle>) -> Result<String> {
        Ok(self.message(this.rep())?.app_label.clone())
    }

    fn name(&mut self, this: Resource<MessageHandle>) -> Result<String> {
        Ok(self.message(this.rep())?.name.clone())
    }

    fn unique_name(&mut self, this: Resource<MessageHandle>) -> Result<String> {
        Ok(self.message(this.rep())?.unique_name())
    }

    fn language(&mut self, this: Resource<MessageHandle>) -> Result<Option<String>> {
        Ok(self.message(this.rep())?.language.clone())
    }

    fn expiration_time(&mut self, this: Resource<MessageHandle>) -> Result<Option<u64>> {
        let time = self.message(this.rep())?.expiration_time.as_ref();
        // Any time before 1970 has expired, and so has 1970.
        Ok(time.map(|t| t.timestamp().as_millisecond().max(0) as u64))
    }

    fn recipient(&mut self, this: Resource<MessageHandle>) -> Result<Option<Recipient>> {
        let recipient = self.message(this.rep())?.recipient.as_ref();
        Ok(recipient.map(|r| Recipient {
            user_id: r.lms_user_id.as_text(),
            lms_user_id: r.lms_user_id.as_number(),
            email_address: r.email_address.clone(),
            contacts: r.contacts.clone(),
        }))
    }

    fn headers(&mut self, this: Resource<MessageHandle>) -> Result<Vec<(String, String)>> {
        Ok(self.message(this.rep())?.headers.0.clone())
    }

    fn options(&mut self, this: Resource<MessageHandle>, pointer: String) -> Result<Option<String>> {
        let options = &self.message(this.rep())?.options;
        Ok(match split(&pointer)? {
            None => Some(serde_json::to_string(options)?),
            Some((key, rest)) => options.get(&*key).and_then(|value| value.pointer(rest)).map(Value::to_string),
        })
    }

    fn context(&mut self, this: Resource<MessageHandle>, pointer: String) -> Result<Option<String>> {
        part(&self.message(this.rep())?.context, &pointer)
    }

    fn to_json(&mut self, this: Resource<MessageHandle>) -> Result<String> {
        Ok(self.message(this.rep())?.to_json())
    }

    fn drop(&mut self, _: Resource<MessageHandle>) -> Result<()> {
        Ok(())
    }
}

/// The value at an RFC 6901 pointer, as JSON text.
fn part(context: &Context, pointer: &str) -> Result<Option<String>> {
    Ok(match split(pointer)? {
        None => Some(context.as_json().to_owned()),
        Some((key, "")) => context.get(&key).map(str::to_owned),
        Some((key, rest)) => context.get(&key).and_then(|value| json::at(value, rest)).map(str::to_owned),
    })
}

/// Splits an RFC 6901 pointer into its first key and the rest; `None` for the whole document.
fn split(pointer: &str) -> Result<Option<(Cow<'_, str>, &str)>> {
    if pointer.is_empty() {
        return Ok(None);
    }
    let Some(path) = pointer.strip_prefix('/') else {
        wasmtime::bail!(
            "{pointer:?} is not a JSON pointer: write \"\" for the whole or \"/key\" for a part (RFC 6901)"
        );
    };
    let (first, rest) = path.find('/').map_or((path, ""), |at| path.split_at(at));
    Ok(Some(if first.contains('~') {
        (Cow::Owned(first.replace("~1", "/").replace("~0", "~")), rest)
    } else {
        (Cow::Borrowed(first), rest)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_reach_every_part() {
        let json = r#"{"a": [1, {"b/c": "x"}], "": 2, "~": null, "n": [18446744073709551616]}"#;
        let context: Context = serde_json::from_str(json).expect("it is an object");
        let part = |p| part(&context, p).expect("a pointer");
        assert_eq!(part("/a/1/b~1c").as_deref(), Some("\"x\""));
        assert_eq!(part("/").as_deref(), Some("2"));
        assert_eq!(part("/~0").as_deref(), Some("null"));
        assert_eq!(part("/a/7"), None);
        assert_eq!(part("/n/0").as_deref(), Some("18446744073709551616"), "its digits");
        assert_eq!(part("").as_deref(), Some(r#"{"a":[1,{"b/c":"x"}],"":2,"~":null,"n":[18446744073709551616]}"#));
        assert!(super::part(&context, "a").is_err());
    }
}
