//! Pauses that a host asks for.

use jiff::Timestamp;
use reqwest::header::RETRY_AFTER;

use super::super::client::retry_pause;
use super::*;

#[test]
fn only_a_named_host_that_is_busy_pauses_the_channel() {
    let pause = |status: StatusCode, is_named_host: bool| {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("70"))]);
        let outcome = Ok(Response { status, headers, body: Vec::new(), rejected_credential: None });
        retry_pause(&outcome, is_named_host, Timestamp::UNIX_EPOCH)
    };
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        assert_eq!(pause(status, true), Some(Duration::from_secs(70)), "{status}");
        assert_eq!(pause(status, false), None, "{status}");
    }
    assert_eq!(pause(StatusCode::BAD_REQUEST, true), None);
}
