//! The request to Sailthru: a signed form, `POST /send`, in the form of edx-ace and Sailthru's client for Python.

use std::fmt::Write;

use ace_plugin::http::Request;
use md5::{Digest, Md5};
use serde::Serialize;

use crate::settings::Settings;

/// One mail.
#[derive(Serialize)]
pub struct Send<'a> {
    pub template: &'a str,
    pub email: &'a str,
    pub vars: Vars<'a>,
    pub options: Options<'a>,
}

/// The rendered files, with the names of the variables at Sailthru.
#[derive(Serialize)]
pub struct Vars<'a> {
    #[serde(rename = "ace_template_from_name")]
    pub from_name: &'a str,
    #[serde(rename = "ace_template_subject")]
    pub subject: &'a str,
    #[serde(rename = "ace_template_body_html")]
    pub body_html: &'a str,
    #[serde(rename = "ace_template_head_html")]
    pub head_html: &'a str,
    #[serde(rename = "ace_template_body")]
    pub body: &'a str,
}

#[derive(Serialize)]
pub struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    behalf_email: Option<Behalf<'a>>,
}

/// Sailthru accepts one address. A list of one becomes its address; a longer list is passed unchanged, as in edx-ace.
#[derive(Serialize)]
#[serde(untagged)]
enum Behalf<'a> {
    One(&'a str),
    Many(&'a [String]),
}

/// The address on whose behalf Sailthru sends: that for replies, otherwise the sender of the message.
pub fn options<'a>(reply_to: &'a [String], from_address: Option<&'a str>) -> Options<'a> {
    let behalf_email = match reply_to {
        [] => from_address.map(Behalf::One),
        [one] => Some(Behalf::One(one)),
        many => Some(Behalf::Many(many)),
    };
    Options { behalf_email }
}

/// Trims whitespace by Python's rules. Sailthru silently drops mails with leading or trailing whitespace.
pub fn stripped(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}

impl Send<'_> {
    /// The parameter `json`.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("texts in structs are JSON")
    }
}

/// The request that sends it.
pub fn request(settings: &Settings, json: &str) -> Request {
    let mut request = Request::post(&settings.url)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form(&settings.api_key, &settings.api_secret, json));
    request.timeout_ms = Some(settings.timeout_ms);
    request
}

fn form(api_key: &str, secret: &str, json: &str) -> String {
    let signature = signature(secret, [api_key, "json", json]);
    let mut form = String::with_capacity(json.len() * 3 / 2 + 128);
    for (name, value) in [("api_key", api_key), ("format", "json"), ("json", json), ("sig", &signature)] {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        escape(value, &mut form);
    }
    form
}

/// MD5, in hexadecimal, of the secret and the sorted values.
fn signature<const N: usize>(secret: &str, mut values: [&str; N]) -> String {
    values.sort_unstable();
    let mut md5 = Md5::new();
    md5.update(secret);
    values.iter().for_each(|value| md5.update(value));
    let mut hex = String::with_capacity(32);
    for byte in md5.finalize() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Encodes as Python's `urlencode` does.
fn escape(value: &str, form: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => form.push(char::from(byte)),
            b' ' => form.push('+'),
            _ => {
                let _ = write!(form, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
