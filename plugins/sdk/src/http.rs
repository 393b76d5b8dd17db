//! Outgoing HTTP. The manifest requests what is reached: `http = ["https://api.example.com/v1/"]`.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::channel::DeliveryError;
use crate::email::one_line;
use crate::{Error, Timestamp};

pub use crate::bindings::openedx::ace::http::{HttpError, Request, Response};
pub use crate::imports::http::fetch;

/// Makes a request whose answer must be a success (2xx); any other is an error by what happens next: 408, 425, 429 and 5xx
/// are recoverable, the rest is fatal.
pub fn fetch_ok(request: &Request) -> Result<Response, DeliveryError> {
    let response = fetch(request)?;
    match refusal(response.status) {
        None => Ok(response),
        Some(Refusal::MayPass) => {
            Err(DeliveryError::recoverable(format!("{} answered {}", request.url, response.status)))
        }
        Some(Refusal::Final) => Err(DeliveryError::Fatal(format!("{} answered {}", request.url, response.status))),
    }
}

#[derive(Debug, PartialEq)]
enum Refusal {
    MayPass,
    Final,
}

fn refusal(status: u16) -> Option<Refusal> {
    match status {
        200..=299 => None,
        408 | 425 | 429 | 500..=599 => Some(Refusal::MayPass),
        _ => Some(Refusal::Final),
    }
}

impl Request {
    /// A request without headers or body.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Request { method: method.into(), url: url.into(), headers: Vec::new(), body: None, timeout_ms: None }
    }

    /// A GET request.
    pub fn get(url: impl Into<String>) -> Self {
        Request::new("GET", url)
    }

    /// A POST request.
    pub fn post(url: impl Into<String>) -> Self {
        Request::new("POST", url)
    }

    /// This request, and a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// This request with a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// This request with a value as its JSON body, and the header that says so.
    ///
    /// ```
    /// #[derive(serde::Serialize)]
    /// struct Text<'a> {
    ///     to: &'a str,
    /// }
    ///
    /// # fn main() -> Result<(), ace_plugin::Error> {
    /// let request = ace_plugin::http::Request::post("https://sms.example.com/").json(&Text { to: "+15550100" })?;
    /// assert_eq!(request.body.as_deref(), Some(&b"{\"to\":\"+15550100\"}"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn json(self, body: &impl Serialize) -> Result<Self, Error> {
        let body = serde_json::to_vec(body).map_err(|e| Error::new("the body of a request", e))?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// This request with a token for who asks: `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// This request with milliseconds for the whole exchange, as far as the host allows them.
    #[must_use]
    pub fn timeout_ms(mut self, ms: u32) -> Self {
        self.timeout_ms = Some(ms);
        self
    }
}

/// Where an API is, as an operator writes it: a host (`rest.iad-01.braze.com`) or an https URL without `?` and `#`; here as
/// a URL without a slash at its end. Other schemes are refused: what goes there carries keys.
pub fn base_url(text: &str) -> Result<String, String> {
    let host = match text.trim().split_once("://") {
        Some(("https", host)) => host,
        Some(_) => return Err(format!("{text:?} is no https URL")),
        None => text.trim(),
    };
    let host = host.trim_end_matches('/');
    let is_allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '@' | '\\');
    if !host.is_empty() && !host.starts_with('/') && host.chars().all(is_allowed) {
        Ok(format!("https://{host}"))
    } else {
        Err(format!("{text:?} is neither a host nor an https URL, as in \"https://api.example.com\""))
    }
}

/// A time-out as an operator writes it: whole seconds, 1 to 300; here in milliseconds.
pub fn timeout_ms(seconds: &str) -> Result<u32, String> {
    match seconds.trim().parse::<u32>() {
        Ok(seconds @ 1..=TIMEOUT_SECONDS_MAX) => Ok(seconds * 1000),
        _ => Err(format!("{seconds:?} is no whole number of seconds from 1 to {TIMEOUT_SECONDS_MAX}")),
    }
}

const TIMEOUT_SECONDS_MAX: u32 = 300;

/// No provider means a moment after this one, the end of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

/// Characters of an answer that are worth an operator's time.
const EXCERPT_CHARS: usize = 300;

impl Response {
    /// The value of the first header of this name, in whatever case, without spaces around it.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// When a Retry-After header (RFC 9110, section 10.2.3: seconds or a date) says to come back. `None`: there is none, or
    /// nobody could mean it.
    pub fn retry_after(&self, now: Timestamp) -> Option<Timestamp> {
        let value = self.header("retry-after")?;
        self.seconds_from("retry-after", now).or_else(|| date(value))
    }

    /// The moment a header counts the seconds to.
    pub fn seconds_from(&self, name: &str, now: Timestamp) -> Option<Timestamp> {
        now.checked_add(seconds(self.header(name)?)?).filter(|at| *at <= SECONDS_MAX * 1000)
    }

    /// The moment a header names in seconds since the Unix epoch.
    pub fn epoch_seconds(&self, name: &str) -> Option<Timestamp> {
        seconds(self.header(name)?)
    }

    /// The body, which is JSON of this type. Anything else is an error that says so.
    pub fn json<T: for<'de> Deserialize<'de>>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|e| Error::new("the body of an answer", e))
    }

    /// The beginning of the body as one line for the operator.
    pub fn excerpt(&self) -> String {
        one_line(&String::from_utf8_lossy(&self.body)).chars().take(EXCERPT_CHARS).collect()
    }
}

/// A number of seconds, in milliseconds. Some providers send fractions.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let seconds: u64 = (is_number(whole) && is_number(fraction)).then(|| whole.parse().ok())??;
    (seconds <= SECONDS_MAX).then(|| seconds * 1000)
}

fn date(text: &str) -> Option<Timestamp> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// One line for the operator.
impl From<HttpError> for String {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Denied(text) => format!("http: {text}"),
            HttpError::Invalid(text) => format!("http: {text}"),
            HttpError::TimedOut => "http: no answer in time".to_owned(),
            HttpError::Connection(text) => format!("http: connection failed: {text}"),
            HttpError::TooLarge(limit) => format!("http: the answer is longer than {limit} bytes"),
        }
    }
}

/// Time-outs and broken connections may pass, the rest does not.
impl From<HttpError> for DeliveryError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::TimedOut | HttpError::Connection(_) => DeliveryError::recoverable(error),
            HttpError::Denied(_) | HttpError::Invalid(_) | HttpError::TooLarge(_) => DeliveryError::Fatal(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_happens_next() {
        assert_eq!(refusal(204), None);
        assert_eq!(refusal(429), Some(Refusal::MayPass));
        assert_eq!(refusal(503), Some(Refusal::MayPass));
        assert_eq!(refusal(302), Some(Refusal::Final));
        assert_eq!(refusal(404), Some(Refusal::Final));
    }

    fn response(name: &str, value: &str) -> Response {
        Response { status: 429, headers: vec![(name.to_owned(), value.to_owned())], body: b"\n Too\r\n many".to_vec() }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = 1_445_412_000_000;
        let at = |value| response("Retry-After", value).retry_after(now);
        assert_eq!(at("120"), Some(now + 120_000));
        assert_eq!(at(" 0 "), Some(now));
        assert_eq!(at("1.5"), Some(now + 1_000));
        for date in ["Wed, 21 Oct 2015 07:28:00 GMT", "Wednesday, 21-Oct-15 07:28:00 GMT", "Wed Oct 21 07:28:00 2015"] {
            assert_eq!(at(date), Some(1_445_412_480_000), "{date}");
        }
        for nonsense in
            ["", "soon", "-5", "+5", "1e3", "5s", "99999999999999999999", "253402300799", "Wed, 21 Oct 2015"]
        {
            assert_eq!(at(nonsense), None, "{nonsense}");
        }
        assert_eq!(response("X-Other", "120").retry_after(now), None);
    }

    #[test]
    fn an_epoch_in_milliseconds_is_not_taken_for_seconds() {
        assert_eq!(
            response("x-ratelimit-reset", "1445412480").epoch_seconds("X-RateLimit-Reset"),
            Some(1_445_412_480_000)
        );
        assert_eq!(response("x-ratelimit-reset", "1445412480000").epoch_seconds("X-RateLimit-Reset"), None);
    }

    #[test]
    fn an_api_is_at_a_host_or_an_https_url() {
        for text in ["api.example.com", "https://api.example.com", " https://api.example.com/ "] {
            assert_eq!(base_url(text), Ok("https://api.example.com".to_owned()), "{text}");
        }
        assert_eq!(base_url("https://localhost:8443/v1/"), Ok("https://localhost:8443/v1".to_owned()));
        for bad in ["", "https://", "https:///x", "//x", "a b", "user:pass@host", "host?x", "host#x", "host\\x", "é.fr"]
        {
            assert!(base_url(bad).expect_err(bad).contains("neither a host nor an https URL"), "{bad}");
        }
        assert!(base_url("http://api.example.com").expect_err("plain text").contains("no https URL"));
    }

    #[test]
    fn a_time_out_is_whole_seconds() {
        assert_eq!(timeout_ms("5"), Ok(5_000));
        assert_eq!(timeout_ms("300"), Ok(300_000));
        for bad in ["0", "-1", "2.5", "301", "5s", ""] {
            assert!(timeout_ms(bad).expect_err(bad).contains("from 1 to 300"), "{bad}");
        }
    }

    #[test]
    fn json_goes_out_and_comes_back_typed() {
        let request = Request::post("https://a.example/").bearer("t").timeout_ms(500).json(&["a"]).expect("JSON");
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(request.headers, [header("authorization", "Bearer t"), header("content-type", "application/json")]);
        assert_eq!((request.body.as_deref(), request.timeout_ms), (Some(&b"[\"a\"]"[..]), Some(500)));
        let answer = Response { body: b"[7]".to_vec(), ..response("a", "b") };
        assert_eq!(answer.json(), Ok(vec![7]));
        let error = answer.json::<String>().expect_err("a list is no text");
        assert!(error.to_string().starts_with("the body of an answer: invalid type: sequence"), "{error}");
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(response("a", "b").excerpt(), "Too many");
        let long = Response { body: vec![0xff; 5_000], ..response("a", "b") };
        assert_eq!(long.excerpt().chars().count(), 300);
    }
}
