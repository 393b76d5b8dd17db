//! A policy and a channel built against tests/compat/wit-1.0.0, which never changes. Together they call every function that
//! 1.0.0 lets a plugin import, and return every record it lets a plugin export.

wit_bindgen::generate!({
    path: "../../compat/wit-1.0.0",
    inline: "
        package tests:frozen;
        world frozen {
            include openedx:ace/capabilities@1.0.0;
            import openedx:ace/mailer@1.0.0;
            import openedx:ace/outbox@1.0.0;
            export openedx:ace/policy@1.0.0;
            export openedx:ace/channel@1.0.0;
            export openedx:ace/recipient-resolver@1.0.0;
        }
    ",
    generate_all,
});

use exports::openedx::ace::{channel, policy, recipient_resolver};
use openedx::ace::http::{self, Request};
use openedx::ace::keyvalue;
use openedx::ace::logging::{self, Level};
use openedx::ace::mailer::{self, Attachment, Email};
use openedx::ace::messages::Message;
use openedx::ace::{config, outbox, time_zones};
use wasi::clocks::wall_clock;
use wasi::random::random;

/// Not used without a host.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
struct Frozen;

/// The values of all getters of a message.
fn told(message: &Message) -> String {
    let recipient = message.recipient();
    let recipient = recipient.map(|r| (r.user_id, r.lms_user_id, r.email_address, r.contacts.len()));
    format!(
        "{} {:?} {} {} {} {:?} {:?} {recipient:?} {} {:?} {:?} {}",
        message.uuid().len(),
        message.send_uuid().map(|uuid| uuid.len()),
        message.app_label(),
        message.name(),
        message.unique_name(),
        message.language(),
        message.expiration_time(),
        message.headers().len(),
        message.options("/transactional"),
        message.context("/a/0"),
        message.to_json().contains("\"name\""),
    )
}

/// The answers of all imports that need no grant.
fn surroundings() -> String {
    let now = wall_clock::now();
    let offset = time_zones::offset_ms("Europe/Paris", 0);
    let random = random::get_random_bytes(8).len();
    format!("{:?} {offset:?} {random} {}", config::get("colour"), now.seconds > 0)
}

/// A count in the granted bucket `facts`.
fn count() -> Result<i64, keyvalue::KeyvalueError> {
    keyvalue::set("facts", "seen", b"1", Some(60_000))?;
    let seen = keyvalue::get("facts", "seen")?.is_some();
    keyvalue::delete("facts", "seen")?;
    keyvalue::increment("facts", "count", i64::from(seen), None, Some("once"))
}

impl policy::Guest for Frozen {
    fn enabled() -> Result<(), String> {
        Ok(())
    }

    fn check(message: Message) -> Result<policy::PolicyResult, String> {
        for level in [Level::Debug, Level::Info, Level::Warn, Level::Error] {
            logging::log(level, "frozen");
        }
        let count = count().map_err(|error| format!("{error:?}"))?;
        let reason = format!("{} | {} | {count}", told(&message), surroundings());
        Ok(policy::PolicyResult {
            deny: vec![policy::Denial { channel_type: "push".to_owned(), reason: Some(reason) }],
            delay: vec![policy::Delay { channel_type: "*".to_owned(), not_before: 1, reason: None }],
        })
    }
}

impl channel::Guest for Frozen {
    fn describe() -> channel::ChannelInfo {
        let file = |name: &str, required| channel::TemplateFile { name: name.to_owned(), required };
        let template_files = vec![file("body.txt", true), file("extra.txt", false)];
        channel::ChannelInfo { channel_type: "email".to_owned(), template_files }
    }

    fn enabled() -> Result<(), String> {
        Ok(())
    }

    fn overrides_delivery_for_message(_: Message) -> bool {
        true
    }

    fn action_links(_: Message) -> Vec<channel::ActionLink> {
        let link = ("https://campus.example/off", "Unsubscribe");
        vec![channel::ActionLink { url: link.0.to_owned(), text: link.1.to_owned(), unsubscribe: true }]
    }

    fn tracker_image_sources(_: Message) -> Vec<String> {
        vec!["https://campus.example/seen.gif".to_owned()]
    }

    fn deliver(
        _: Message,
        rendered: Vec<(String, String)>,
        attempt: channel::Attempt,
    ) -> Result<channel::Receipt, channel::DeliveryError> {
        if attempt.number == 1 {
            let message = "the first attempt is for nothing".to_owned();
            let error = openedx::ace::common::RecoverableError { message, next_attempt_time: Some(1) };
            return Err(channel::DeliveryError::Recoverable(error));
        }
        let fatal = |what: String| channel::DeliveryError::Fatal(what);
        let fetched = http::fetch(&Request {
            method: "GET".to_owned(),
            url: "https://campus.example.invalid/".to_owned(),
            headers: vec![("accept".to_owned(), "*/*".to_owned())],
            body: None,
            timeout_ms: Some(100),
        });
        let Err(http::HttpError::Denied(_)) = fetched else { return Err(fatal(format!("{fetched:?}"))) };
        outbox::write("frozen.txt", b"written").map_err(|e| fatal(format!("{e:?}")))?;
        let text = rendered.into_iter().map(|(_, text)| text).collect();
        let sent = mailer::send(&email(text), &attempt.idempotency_key).map_err(|e| fatal(format!("{e:?}")))?;
        Ok(channel::Receipt { provider_id: Some(sent.message_id), detail: Some("{\"frozen\": true}".to_owned()) })
    }
}

fn email(text: String) -> Email {
    let address = |name: &str| format!("{name}@learner.example");
    Email {
        sender: Some("Frozen <frozen@campus.example>".to_owned()),
        recipients: vec![address("zoe")],
        cc: vec![address("ann")],
        bcc: vec![address("bob")],
        reply_to: vec![address("desk")],
        subject: "Frozen".to_owned(),
        text,
        html: Some("<p>Frozen</p>".to_owned()),
        headers: vec![("X-Frozen".to_owned(), "yes".to_owned())],
        attachments: vec![Attachment {
            file_name: "a.txt".to_owned(),
            content_type: "text/plain".to_owned(),
            content: b"a".to_vec(),
            content_id: None,
        }],
        relay: Some("main".to_owned()),
        return_path: Some("bounces@campus.example".to_owned()),
    }
}

impl recipient_resolver::Guest for Frozen {
    fn enabled() -> Result<(), String> {
        Ok(())
    }

    fn resolve(
        _: String,
        _: String,
        _: Option<String>,
        _: u32,
    ) -> Result<recipient_resolver::Page, recipient_resolver::ResolveError> {
        Err(recipient_resolver::ResolveError::Fatal("there is nobody".to_owned()))
    }
}

// Nothing is exported natively, because a linker takes the `@` in the names for a version.
#[cfg(target_family = "wasm")]
export!(Frozen);
