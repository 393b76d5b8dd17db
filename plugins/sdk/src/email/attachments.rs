//! `options.attachments`: the attachments of a mail.

use crate::mailer::Attachment;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// One attachment in a message: `{"name": …, "type": …, "content": base64}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    name: String,
    #[serde(rename = "type", default = "any_bytes")]
    content_type: String,
    content: Option<String>,
    /// Known, so that the error can name it.
    url: Option<IgnoredAny>,
}

fn any_bytes() -> String {
    "application/octet-stream".to_owned()
}

impl Given {
    /// Decodes the content. The error is for operators.
    pub fn decoded(self) -> Result<Attachment, String> {
        let fail = |why: &str| format!("options /attachments: {:?}: {why}", self.name);
        if self.url.is_some() {
            return Err(fail("content by \"url\" is not supported; give \"content\" in base64"));
        }
        let Some(mut base64) = self.content else {
            return Err(fail("\"content\" is missing; give it in base64"));
        };
        base64.retain(|c| !c.is_ascii_whitespace());
        let content = BASE64_STANDARD.decode(base64).map_err(|e| fail(&format!("\"content\" is not base64: {e}")))?;
        Ok(Attachment { file_name: self.name, content_type: self.content_type, content, content_id: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<Attachment, String> {
        serde_json::from_str::<Given>(json).map_err(|e| e.to_string())?.decoded()
    }

    #[test]
    fn content_is_base64_in_one_line_or_many() {
        let attachment = decode(r#"{"name":"a.txt","type":"text/plain","content":"SGVs\r\nbG8="}"#).expect("decodes");
        assert_eq!((attachment.content.as_slice(), attachment.content_type.as_str()), (&b"Hello"[..], "text/plain"));
        let attachment = decode(r#"{"name":"a","content":""}"#).expect("decodes");
        assert_eq!(attachment.content_type, "application/octet-stream");
    }

    #[test]
    fn an_error_names_the_invalid_attachment() {
        let error = decode(r#"{"name":"a.txt","url":"https://example.com/a"}"#).expect_err("by URL");
        assert_eq!(
            error,
            "options /attachments: \"a.txt\": content by \"url\" is not supported; give \"content\" in base64"
        );
        assert!(
            decode(r#"{"name":"a","content":"%"}"#)
                .expect_err("not base64")
                .contains("\"a\": \"content\" is not base64")
        );
        assert!(decode(r#"{"name":"a"}"#).is_err());
        assert!(decode(r#"{"name":"a","contents":"x"}"#).expect_err("unknown").contains("contents"));
    }
}
