//! A channel that also reads feedback, built against tests/compat/wit-1.1.0, which never changes. Together they call every function
//! that 1.1.0 added, and return every record of `feedback`.

wit_bindgen::generate!({
    path: "../../compat/wit-1.1.0",
    inline: "
        package tests:frozen;
        world frozen {
            include openedx:ace/capabilities@1.1.0;
            import openedx:ace/delivery@1.1.0;
            import openedx:ace/incoming@1.1.0;
            export openedx:ace/channel@1.1.0;
            export openedx:ace/feedback@1.1.0;
        }
    ",
    generate_all,
});

use exports::openedx::ace::channel::{self, DeliveryError, Receipt};
use exports::openedx::ace::feedback::{self, FeedbackError, Received};
use openedx::ace::authorized_http::{self, AuthorizedError};
use openedx::ace::common::RecoverableError;
use openedx::ace::http::Request;
use openedx::ace::messages::Message;
use openedx::ace::signatures::{self, SignatureError};
use openedx::ace::{delivery, incoming, keyvalue};

/// Not used without a host.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
struct Frozen;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).filter_map(|d| u8::try_from(d).ok()).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// What became of a token in the bucket: how it was counted, and its place in the window.
fn counts(token: &str, attempt: u32, earlier: usize) -> Result<String, keyvalue::KeyvalueError> {
    let counted = keyvalue::count_once("counts", "all", token, 1, None)?;
    let place = keyvalue::take_place("counts", "window", token, 1, 60_000)?;
    keyvalue::give_place_back("counts", "window", token)?;
    let (at, total, first) = (counted.at, counted.total, counted.first_time);
    Ok(format!("[{earlier},{at},{total},{first},{},{},{attempt}]", place.is_granted, place.used))
}

/// The notes of earlier attempts: objects without further objects in them.
fn noted() -> usize {
    delivery::noted_outcomes().matches('{').count()
}

impl channel::Guest for Frozen {
    fn describe() -> channel::ChannelInfo {
        let body = channel::TemplateFile { name: "body.txt".to_owned(), required: true };
        channel::ChannelInfo { channel_type: "sms".to_owned(), template_files: vec![body] }
    }

    fn enabled() -> Result<(), String> {
        Ok(())
    }

    fn overrides_delivery_for_message(_: Message) -> bool {
        false
    }

    fn action_links(_: Message) -> Vec<channel::ActionLink> {
        Vec::new()
    }

    fn tracker_image_sources(_: Message) -> Vec<String> {
        Vec::new()
    }

    fn deliver(
        message: Message,
        rendered: Vec<(String, String)>,
        attempt: channel::Attempt,
    ) -> Result<Receipt, DeliveryError> {
        let signature = message.context("/signature").unwrap_or_default();
        if !matches!(signatures::verify("gateway", "hmac-sha256", b"frozen", &hex(&signature)), Ok(true)) {
            return Err(DeliveryError::Skipped("forged".to_owned()));
        }
        let detail = counts(&message.uuid(), attempt.number, noted());
        let detail = detail.map_err(|error| DeliveryError::Fatal(format!("{error:?}")))?;
        let request = Request {
            method: "POST".to_owned(),
            url: "https://sms.example.com/v1/$(gateway)/send".to_owned(),
            headers: Vec::new(),
            body: rendered.into_iter().next().map(|(_, text)| text.into_bytes()),
            timeout_ms: None,
        };
        let response = authorized_http::fetch(&request, "gateway").map_err(|error| {
            let tag = match error {
                AuthorizedError::Http(_) => "http",
                AuthorizedError::Rejected(_) => "rejected",
                AuthorizedError::Unavailable(_) => "unavailable",
            };
            delivery::hold_channel(Some(1_767_272_400_000), tag);
            DeliveryError::Recoverable(RecoverableError { message: tag.to_owned(), next_attempt_time: None })
        })?;
        let note = r#"{"kind": "phone", "address": "+15550100", "outcome": "sent", "provider_id": "p-1", "code": ""#;
        delivery::note_outcome(&format!("{note}{}\"}}", response.status));
        Ok(Receipt { provider_id: Some("p-1".to_owned()), detail: Some(detail) })
    }
}

impl feedback::Guest for Frozen {
    fn enabled() -> Result<(), String> {
        incoming::public_url().map(|_| ()).ok_or_else(|| "set server.public-url".to_owned())
    }

    fn receive(request: incoming::Request) -> Result<Received, FeedbackError> {
        if request.method() == "GET" {
            return Ok(challenged(&request));
        }
        let (body, signature) = (request.body(), request.header("X-Signature").concat());
        if !matches!(signatures::verify("provider", "hmac-sha256", &body, &hex(&signature)), Ok(true)) {
            return Err(FeedbackError::Refused("the signature is wrong".to_owned()));
        }
        match body.as_slice() {
            b"" => Err(FeedbackError::Malformed("there is no event".to_owned())),
            b"later" => Err(FeedbackError::Unavailable(refusal().to_owned())),
            id => Ok(Received { events: vec![event(&request, id)], answer: None }),
        }
    }
}

fn challenged(request: &incoming::Request) -> Received {
    let words = [incoming::public_url(), request.url(), request.query()];
    let body = words.map(|word| word.unwrap_or_else(|| "-".to_owned())).join(" ").into_bytes();
    let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
    Received { events: Vec::new(), answer: Some(feedback::Answer { status: 202, headers, body }) }
}

fn event(request: &incoming::Request, id: &[u8]) -> feedback::Event {
    feedback::Event {
        id: String::from_utf8_lossy(id).into_owned(),
        kind: "bounced".to_owned(),
        at: Some(request.received_at()),
        message_uuid: Some("00000000-0000-4000-8000-000000000001".to_owned()),
        provider_id: Some(request.path().trim_start_matches('/').to_owned()),
        message_id: Some("<m@example.com>".to_owned()),
        address: Some(("email".to_owned(), "zoe@learner.example".to_owned())),
        is_permanent: true,
        is_vouched: true,
        reason: Some(format!("{} headers", request.headers().len())),
        detail: Some(r#"{"frozen":true}"#.to_owned()),
    }
}

/// What verify-with says of a key that is none.
fn refusal() -> &'static str {
    match signatures::verify_with(b"no key", "ed25519", b"", b"") {
        Err(SignatureError::Invalid(_)) => "invalid",
        _ => "?",
    }
}

// Nothing is exported natively, because a linker takes the `@` in the names for a version.
#[cfg(target_family = "wasm")]
export!(Frozen);
