//! The request: `POST /v2/email/outbound-emails`
//! (<https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>).
//!
//! The content is `Simple`: SES builds the mail from its parts and adds headers and attachments. `Raw` would need a finished mail, which
//! only the host's mailer builds, and which it hands to relays alone.

use std::collections::BTreeMap;

use ace_address::attachment::{self, MediaType};
use ace_address::header;
use ace_plugin::http::Request;
use ace_plugin::mailer::{Attachment, Email};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use crate::ascii;
use crate::settings::{Settings, is_name};

/// To, Cc and Bcc together.
const RECIPIENTS_MAX: usize = 50;
const HEADERS_MAX: usize = 15;
/// The longest value of a header, and the longest name and value together.
const HEADER_VALUE_BYTES_MAX: usize = 995;
const HEADER_BYTES_MAX: usize = 996;
const TAG_BYTES_MAX: usize = 256;
/// The longest media type, and the longest Content-ID, of an attachment.
const ATTACHMENT_FIELD_BYTES_MAX: usize = 78;
const MAIL_BYTES_MAX: usize = 40 * 1024 * 1024;
/// Memory for the parts of a usual mail without attachments.
const BODY_BYTES: usize = 64 * 1024;

/// The tag with the message's uuid, which comes back with events.
const UUID_TAG: &str = "message-uuid";
/// The tag with the message's name, by which events can be counted.
const NAME_TAG: &str = "message-name";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SendEmail<'a> {
    from_email_address: String,
    destination: Destination,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reply_to_addresses: Vec<String>,
    content: Content<'a>,
    email_tags: Vec<Pair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration_set_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_name: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Destination {
    to_addresses: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cc_addresses: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bcc_addresses: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Content<'a> {
    simple: Simple<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Simple<'a> {
    subject: Text<'a>,
    body: Body<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<Pair>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<File<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Text<'a> {
    data: &'a str,
    charset: &'static str,
}

impl<'a> Text<'a> {
    fn new(data: &'a str) -> Self {
        Text { data, charset: "UTF-8" }
    }
}

/// A header or a tag.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pair {
    name: String,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct File<'a> {
    file_name: &'a str,
    content_type: &'a str,
    content_disposition: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_id: Option<&'a str>,
    content_transfer_encoding: &'static str,
    raw_content: String,
}

/// What SES returns with events: the message's own names, and the tags in its options.
pub struct Tags<'a> {
    pub uuid: &'a str,
    pub name: &'a str,
    pub given: BTreeMap<String, String>,
}

/// The request without its signature.
pub fn request(settings: &Settings, mail: &Email, tags: Tags<'_>) -> Result<Request, String> {
    let attached = mail.attachments.iter().map(|file| file.content.len()).sum::<usize>().div_ceil(3) * 4;
    // Before the attachments are encoded, which needs more memory.
    check_size(attached)?;
    let mut body = Vec::with_capacity(attached + BODY_BYTES);
    serde_json::to_writer(&mut body, &send_email(settings, mail, tags)?).map_err(|e| e.to_string())?;
    check_size(body.len())?;
    Ok(Request::post(&settings.url)
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(body)
        .timeout_ms(settings.timeout_ms))
}

fn check_size(bytes: usize) -> Result<(), String> {
    match bytes {
        ..=MAIL_BYTES_MAX => Ok(()),
        _ => Err(format!("the request has {bytes} bytes; SES accepts at most {MAIL_BYTES_MAX}")),
    }
}

fn send_email<'a>(settings: &'a Settings, mail: &'a Email, tags: Tags<'_>) -> Result<SendEmail<'a>, String> {
    let recipients = mail.recipients.len() + mail.cc.len() + mail.bcc.len();
    if recipients > RECIPIENTS_MAX {
        return Err(format!("{recipients} recipients including cc and bcc; SES accepts at most {RECIPIENTS_MAX}"));
    }
    header::check_line("subject", &mail.subject)?;
    let (headers, reply_to_header) = headers(mail)?;
    Ok(SendEmail {
        from_email_address: ascii::mailboxes("sender", &[sender(settings, mail).to_owned()])?.concat(),
        destination: Destination {
            to_addresses: ascii::mailboxes("recipients", &mail.recipients)?,
            cc_addresses: ascii::mailboxes("cc", &mail.cc)?,
            bcc_addresses: ascii::mailboxes("bcc", &mail.bcc)?,
        },
        reply_to_addresses: match reply_to_header {
            Some(list) => list,
            None => ascii::mailboxes("reply_to", &mail.reply_to)?,
        },
        content: Content {
            simple: Simple {
                subject: Text::new(&mail.subject),
                body: Body {
                    text: Some(&mail.text).filter(|text| !text.is_empty()).map(|text| Text::new(text)),
                    html: mail.html.as_deref().map(Text::new),
                },
                headers,
                attachments: mail.attachments.iter().map(file).collect::<Result<_, _>>()?,
            },
        },
        email_tags: email_tags(tags)?,
        configuration_set_name: settings.configuration_set.as_deref(),
        tenant_name: settings.tenant.as_deref(),
    })
}

/// The mail's, or the configured one.
pub fn sender<'a>(settings: &'a Settings, mail: &'a Email) -> &'a str {
    mail.sender.as_deref().unwrap_or(&settings.default_from)
}

/// The headers, and the addresses of a Reply-To among them, which SES has a field for.
fn headers(mail: &Email) -> Result<(Vec<Pair>, Option<Vec<String>>), String> {
    let (mut all, mut reply_to) = (Vec::new(), None);
    for (name, value) in &mail.headers {
        header::check(name, value, !mail.reply_to.is_empty() || reply_to.is_some())?;
        if name.eq_ignore_ascii_case("reply-to") {
            let list = header::mailboxes(value).and_then(|list| list.iter().map(ascii::ascii).collect());
            reply_to = Some(list.map_err(|why| format!("headers: {name}: {why}"))?);
            continue;
        }
        let value = ascii::header_value(name, value)?;
        let bytes = value.len();
        if bytes == 0 || bytes > HEADER_VALUE_BYTES_MAX || name.len() + bytes > HEADER_BYTES_MAX {
            let limit = format!("SES accepts 1 to {HEADER_VALUE_BYTES_MAX}, and {HEADER_BYTES_MAX} with the name");
            return Err(format!("headers: {name}: the value has {bytes} bytes; {limit}"));
        }
        all.push(Pair { name: name.clone(), value });
    }
    if all.len() > HEADERS_MAX {
        return Err(format!("headers: {}; SES accepts at most {HEADERS_MAX}", all.len()));
    }
    Ok((all, reply_to))
}

fn file(attached: &Attachment) -> Result<File<'_>, String> {
    attachment::check_file_name(&attached.file_name)?;
    if attached.file_name.is_empty() {
        return Err("attachments: file_name is empty; SES requires one".to_owned());
    }
    let content_id = attached.content_id.as_deref().map(attachment::content_id).transpose()?;
    check_length("content_id", content_id.unwrap_or_default())?;
    Ok(File {
        file_name: &attached.file_name,
        content_type: content_type(attached)?,
        content_disposition: if content_id.is_some() { "INLINE" } else { "ATTACHMENT" },
        content_id,
        content_transfer_encoding: "BASE64",
        raw_content: BASE64_STANDARD.encode(&attached.content),
    })
}

/// The media type, without its parameters if it is too long with them.
fn content_type(attached: &Attachment) -> Result<&str, String> {
    let essence = MediaType::parse(&attached.content_type)?.essence;
    check_length("content_type", essence)?;
    let whole = attached.content_type.trim();
    Ok(if whole.len() <= ATTACHMENT_FIELD_BYTES_MAX { whole } else { essence })
}

fn check_length(field: &str, text: &str) -> Result<(), String> {
    match text.len() {
        ..=ATTACHMENT_FIELD_BYTES_MAX => Ok(()),
        bytes => {
            Err(format!("attachments: {field} has {bytes} bytes; SES accepts at most {ATTACHMENT_FIELD_BYTES_MAX}"))
        }
    }
}

fn email_tags(tags: Tags<'_>) -> Result<Vec<Pair>, String> {
    let tag = |name: &str, value: String| Pair { name: name.to_owned(), value };
    let mut all = vec![tag(UUID_TAG, tags.uuid.to_owned()), tag(NAME_TAG, name_of(tags.name))];
    let is_valid = |text: &str| (1..=TAG_BYTES_MAX).contains(&text.len()) && is_name(text);
    for (name, value) in tags.given {
        if !is_valid(&name) || !is_valid(&value) || name == UUID_TAG || name == NAME_TAG {
            let expected = "names and values have 1 to 256 letters, digits, \"-\" and \"_\"";
            let own = format!("{UUID_TAG} and {NAME_TAG} are set by the channel");
            return Err(format!("options /tags: {name:?} = {value:?}: {expected}; {own}"));
        }
        all.push(tag(&name, value));
    }
    Ok(all)
}

/// The message's name with the characters that a tag may have.
fn name_of(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    name.chars().map(kept).take(TAG_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests;
