//! The request (<https://www.standardwebhooks.com>). The host adds the signature of id, time and body.

use ace_plugin::Timestamp;
use ace_plugin::http::Request;
use serde::de::IgnoredAny;

/// A message, without its destination.
pub struct Webhook<'a> {
    /// The same in every attempt, so that receivers recognize a repeated message.
    pub id: &'a str,
    pub body: &'a str,
    pub timeout_ms: u32,
}

impl Webhook<'_> {
    /// The request without its signature.
    pub fn request(&self, url: &str, now: Timestamp) -> Request {
        Request::post(url)
            .header("content-type", "application/json")
            .header("webhook-id", self.id)
            .header("webhook-timestamp", (now / 1000).to_string())
            .body(self.body)
            .timeout_ms(self.timeout_ms)
    }
}

/// The rendered body, if it is JSON. It is sent as it is: numbers keep their digits.
pub fn json(rendered: &str) -> Result<&str, String> {
    let body = rendered.trim();
    match serde_json::from_str::<IgnoredAny>(body) {
        Ok(_) => Ok(body),
        Err(error) => Err(format!("body.json is not JSON: {error}; write values as {{{{ value | json_encode }}}}")),
    }
}

/// A URL is a public address: nothing in it is kept secret.
pub fn check(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("https://").ok_or("the recipient's webhook is not an https URL")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority {
        "" => Err("the recipient's webhook has no host".to_owned()),
        authority if authority.contains('@') => Err("the recipient's webhook contains a user or a password".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_are_those_of_standard_webhooks() {
        let webhook = Webhook { id: "msg_1", body: r#"{"a":1}"#, timeout_ms: 15_000 };
        let request = webhook.request("https://shop.example/hooks", 1_772_366_400_999);
        assert_eq!((request.method.as_str(), request.url.as_str()), ("POST", "https://shop.example/hooks"));
        let headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected =
            [("content-type", "application/json"), ("webhook-id", "msg_1"), ("webhook-timestamp", "1772366400")];
        assert_eq!(headers, expected);
        assert_eq!((request.body.as_deref(), request.timeout_ms), (Some(&br#"{"a":1}"#[..]), Some(15_000)));
    }

    #[test]
    fn a_body_is_json_and_stays_as_it_is() {
        assert_eq!(json(" {\"n\": 12345678901234567890.10}\n"), Ok("{\"n\": 12345678901234567890.10}"));
        for wrong in ["", "{\"a\": Zoë}", "{} {}", "{\"a\": 1,}"] {
            let error = json(wrong).expect_err(wrong);
            assert!(error.ends_with("write values as {{ value | json_encode }}"), "{error}");
        }
    }

    #[test]
    fn a_url_is_https_without_a_password() {
        for good in ["https://a.example", "https://a.example:8443/x?y=a@b#z", "https://a.example/x@y"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for wrong in ["http://a.example/", "", "https://", "https:///x", "https://u:p@a.example/", "ftp://a.example/"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
