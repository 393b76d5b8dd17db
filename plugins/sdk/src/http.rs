//! Outgoing HTTP. The manifest requests the URLs: `http = ["https://api.example.com/v1/"]`.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::channel::DeliveryError;
use crate::email::one_line;
use crate::{Error, RecoverableError, Timestamp, time};

pub use crate::bindings::openedx::ace::http::{HttpError, Request, Response};
pub use crate::imports::http::fetch;

/// Makes a request that must succeed (2xx).
///
/// # Errors
/// 408, 425, 429 and 5xx are recoverable, at the time of a Retry-After if there is one. All other statuses are fatal.
pub fn fetch_ok(request: &Request) -> Result<Response, DeliveryError> {
    success(request, fetch(request)?)
}

/// The response, if it is a success.
pub(crate) fn success(request: &Request, response: Response) -> Result<Response, DeliveryError> {
    match refusal(response.status) {
        None => Ok(response),
        Some(Refusal::Temporary) => {
            let message = format!("{} answered {}", request.url, response.status);
            let next_attempt_time = response.header("retry-after").and_then(|_| response.retry_after(time::now()));
            Err(DeliveryError::Recoverable(RecoverableError { message, next_attempt_time }))
        }
        Some(Refusal::Permanent) => Err(DeliveryError::Fatal(format!("{} answered {}", request.url, response.status))),
    }
}

#[derive(Debug, PartialEq)]
enum Refusal {
    Temporary,
    Permanent,
}

fn refusal(status: u16) -> Option<Refusal> {
    match status {
        200..=299 => None,
        408 | 425 | 429 | 500..=599 => Some(Refusal::Temporary),
        _ => Some(Refusal::Permanent),
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

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sets a value as the JSON body, and its content type.
    ///
    /// # Errors
    /// If the value cannot be serialized.
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

    /// Adds `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Sets the timeout of the whole exchange in milliseconds, limited by the host.
    #[must_use]
    pub fn timeout_ms(mut self, ms: u32) -> Self {
        self.timeout_ms = Some(ms);
        self
    }
}

/// The base URL of an API without a trailing slash, from a setting: a host (`rest.iad-01.braze.com`) or an https URL without `?` and `#`.
///
/// # Errors
/// If it is neither. Other schemes are not allowed, because requests contain keys.
pub fn base_url(text: &str) -> Result<String, String> {
    let host = match text.trim().split_once("://") {
        Some(("https", host)) => host,
        Some(_) => return Err(format!("{text:?} is not an https URL")),
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

/// A timeout in milliseconds, from a setting in whole seconds from 1 to 300.
///
/// # Errors
/// If it is not such a number.
pub fn timeout_ms(seconds: &str) -> Result<u32, String> {
    match seconds.trim().parse::<u32>() {
        Ok(seconds @ 1..=TIMEOUT_SECONDS_MAX) => Ok(seconds * 1000),
        _ => Err(format!("{seconds:?} is not a whole number of seconds from 1 to {TIMEOUT_SECONDS_MAX}")),
    }
}

const TIMEOUT_SECONDS_MAX: u32 = 300;

/// The latest valid time, the end of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

/// The longest excerpt of a response.
const EXCERPT_CHARS: usize = 300;
/// What is read of a body for an excerpt. A body may have megabytes.
const EXCERPT_BYTES: usize = 8 * EXCERPT_CHARS;

impl Response {
    /// The trimmed value of the first header of this name. The name is case-insensitive.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The time of a Retry-After header (RFC 9110, section 10.2.3: seconds, here with fractions too, or a date). `None` if it is missing or invalid.
    pub fn retry_after(&self, now: Timestamp) -> Option<Timestamp> {
        let value = self.header("retry-after")?;
        self.seconds_from("retry-after", now).or_else(|| date(value))
    }

    /// The time of a header with a number of seconds from now, such as `X-RateLimit-Reset-After: 0.65`.
    pub fn seconds_from(&self, name: &str, now: Timestamp) -> Option<Timestamp> {
        now.checked_add(seconds(self.header(name)?)?).filter(|at| *at <= SECONDS_MAX * 1000)
    }

    /// The time of a header in seconds since the Unix epoch.
    pub fn epoch_seconds(&self, name: &str) -> Option<Timestamp> {
        seconds(self.header(name)?)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// If it is not JSON of this type.
    pub fn json<T: for<'de> Deserialize<'de>>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|e| Error::new("the body of an answer", e))
    }

    /// What the provider answered, as one line for operators: its name, the status, its code, and its text or else the start of the body.
    pub fn described(&self, provider: &str, code: &str, text: Option<&str>) -> String {
        let space = if code.is_empty() { "" } else { " " };
        let answered = format!("{provider} answered {}{space}{code}", self.status);
        match text.map_or_else(|| self.excerpt(), one_line).as_str() {
            "" => answered,
            text => format!("{answered}: {text}"),
        }
    }

    /// Why a redirect (3xx) is an error, as one line for operators. `key` is the setting with the URL. `None` for any other status.
    pub fn redirected(&self, provider: &str, key: &str) -> Option<String> {
        let to = self.header("location").unwrap_or("nowhere");
        let hint = format!("redirects are not followed, check config key {key:?}");
        let status = self.status;
        (300..=399).contains(&status).then(|| format!("{provider} answered {status}, a redirect to {to}: {hint}"))
    }

    /// The start of the body as one line for operators.
    pub fn excerpt(&self) -> String {
        let start = &self.body[..self.body.len().min(EXCERPT_BYTES)];
        one_line(&String::from_utf8_lossy(start)).chars().take(EXCERPT_CHARS).collect()
    }
}

/// Parses decimal seconds to milliseconds, rounded up: some providers send fractions. The host reads them in the same way.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let (thousandths, rest) = fraction.split_at(fraction.len().min(3));
    let millis: u64 = format!("{thousandths:0<3}").parse().ok()?;
    let millis = millis + u64::from(rest.bytes().any(|digit| digit != b'0'));
    whole.parse().ok().filter(|whole| *whole <= SECONDS_MAX).map(|whole: u64| whole * 1000 + millis)
}

fn date(text: &str) -> Option<Timestamp> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// One line for operators.
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

/// Timeouts and connection errors are recoverable, all others are fatal.
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
    fn a_status_is_a_success_or_a_temporary_or_permanent_refusal() {
        assert_eq!(refusal(204), None);
        assert_eq!(refusal(429), Some(Refusal::Temporary));
        assert_eq!(refusal(503), Some(Refusal::Temporary));
        assert_eq!(refusal(302), Some(Refusal::Permanent));
        assert_eq!(refusal(404), Some(Refusal::Permanent));
    }

    fn response(name: &str, value: &str) -> Response {
        Response { status: 429, headers: vec![(name.to_owned(), value.to_owned())], body: b"\n Too\r\n many".to_vec() }
    }

    #[test]
    fn an_answer_is_described_in_one_line() {
        let response = response("Location", "https://b.example/");
        assert_eq!(response.described("Acme", "", None), "Acme answered 429: Too many");
        assert_eq!(response.described("Acme", "BUSY", Some("not\nnow")), "Acme answered 429 BUSY: not now");
        assert_eq!(response.described("Acme", "BUSY", Some(" ")), "Acme answered 429 BUSY");
        assert_eq!(response.redirected("Acme", "url"), None);
        let moved = Response { status: 307, ..response };
        let why =
            "Acme answered 307, a redirect to https://b.example/: redirects are not followed, check config key \"url\"";
        assert_eq!(moved.redirected("Acme", "url").as_deref(), Some(why));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = 1_445_412_000_000;
        let at = |value| response("Retry-After", value).retry_after(now);
        assert_eq!(at("120"), Some(now + 120_000));
        assert_eq!(at(" 0 "), Some(now));
        for (text, millis) in [("1.5", 1500), ("0.65", 650), ("1.0", 1000), ("64.5700001", 64_571), ("0.9999", 1000)] {
            assert_eq!(at(text), Some(now + millis), "{text}");
        }
        for date in ["Wed, 21 Oct 2015 07:28:00 GMT", "Wednesday, 21-Oct-15 07:28:00 GMT", "Wed Oct 21 07:28:00 2015"] {
            assert_eq!(at(date), Some(1_445_412_480_000), "{date}");
        }
        for nonsense in [
            "",
            "soon",
            "-5",
            "-0.5",
            "+5",
            "1.",
            ".5",
            "1.5.5",
            "1e3",
            "inf",
            "NaN",
            "5s",
            "99999999999999999999",
            "253402300799",
            "Wed, 21 Oct 2015",
        ] {
            assert_eq!(at(nonsense), None, "{nonsense}");
        }
        assert_eq!(response("X-Other", "120").retry_after(now), None);
    }

    #[test]
    fn an_epoch_in_milliseconds_is_not_interpreted_as_seconds() {
        assert_eq!(
            response("x-ratelimit-reset", "1445412480").epoch_seconds("X-RateLimit-Reset"),
            Some(1_445_412_480_000)
        );
        assert_eq!(response("x-ratelimit-reset", "1445412480000").epoch_seconds("X-RateLimit-Reset"), None);
    }

    #[test]
    fn a_base_url_is_a_host_or_an_https_url() {
        for text in ["api.example.com", "https://api.example.com", " https://api.example.com/ "] {
            assert_eq!(base_url(text), Ok("https://api.example.com".to_owned()), "{text}");
        }
        assert_eq!(base_url("https://localhost:8443/v1/"), Ok("https://localhost:8443/v1".to_owned()));
        for bad in ["", "https://", "https:///x", "//x", "a b", "user:pass@host", "host?x", "host#x", "host\\x", "é.fr"]
        {
            assert!(base_url(bad).expect_err(bad).contains("neither a host nor an https URL"), "{bad}");
        }
        assert!(base_url("http://api.example.com").expect_err("plain text").contains("not an https URL"));
    }

    #[test]
    fn a_timeout_is_whole_seconds() {
        assert_eq!(timeout_ms("5"), Ok(5_000));
        assert_eq!(timeout_ms("300"), Ok(300_000));
        for bad in ["0", "-1", "2.5", "301", "5s", ""] {
            assert!(timeout_ms(bad).expect_err(bad).contains("from 1 to 300"), "{bad}");
        }
    }

    #[test]
    fn json_is_written_and_read_typed() {
        let request = Request::post("https://a.example/").bearer("t").timeout_ms(500).json(&["a"]).expect("JSON");
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(request.headers, [header("authorization", "Bearer t"), header("content-type", "application/json")]);
        assert_eq!((request.body.as_deref(), request.timeout_ms), (Some(&b"[\"a\"]"[..]), Some(500)));
        let answer = Response { body: b"[7]".to_vec(), ..response("a", "b") };
        assert_eq!(answer.json(), Ok(vec![7]));
        let error = answer.json::<String>().expect_err("a list is not a string");
        assert!(error.to_string().starts_with("the body of an answer: invalid type: sequence"), "{error}");
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(response("a", "b").excerpt(), "Too many");
        let mut longest = Response { body: vec![0xff; 4 << 20], ..response("a", "b") };
        assert_eq!(longest.excerpt(), "\u{fffd}".repeat(300));
        longest.body.fill(b' ');
        longest.body.push(b'x');
        assert_eq!(longest.excerpt(), "", "only the start is read");
    }
}
