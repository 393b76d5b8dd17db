//! Makes the request in `context.fetch` of a message, and returns the response: as a policy in the reason of a denial, as a channel (if
//! `context.deliver` is true) in its receipt. If `context.then` is "trap", it traps afterwards.

use ace_plugin::Message;
use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::http::{self, HttpError, Request};
use ace_plugin::policy::{Policy, PolicyResult};

struct HttpProbe;

ace_plugin::export_policy!(HttpProbe);
ace_plugin::export_channel!(HttpProbe);

impl Policy for HttpProbe {
    fn check(message: &Message) -> Result<PolicyResult, String> {
        if message.context_is_true("/deliver") {
            Ok(PolicyResult::pass())
        } else {
            Ok(PolicyResult::pass().deny("probe", probe(message)?))
        }
    }
}

impl Channel for HttpProbe {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("probe")
    }

    fn deliver(message: &Message, _: Rendered, _: &Attempt) -> Result<Receipt, DeliveryError> {
        let found = probe(message).map_err(DeliveryError::Fatal)?;
        if message.context::<String>("/then")?.as_deref() == Some("trap") {
            panic!("after: {found}");
        }
        Ok(Receipt::default().provider_id(found))
    }
}

fn probe(message: &Message) -> Result<String, String> {
    let text = |key: &str| message.context::<String>(&format!("/fetch/{key}"));
    let request = Request {
        method: text("method")?.unwrap_or_else(|| "GET".to_owned()),
        url: text("url")?.unwrap_or_default(),
        headers: message.context("/fetch/headers")?.unwrap_or_default(),
        body: text("body")?.map(String::into_bytes),
        timeout_ms: message.context("/fetch/timeout_ms")?,
    };
    let times: u32 = message.context("/fetch/times")?.unwrap_or(1);
    let mut found = String::new();
    for _ in 0..times {
        found = fetch(&request);
    }
    Ok(found)
}

fn fetch(request: &Request) -> String {
    match http::fetch(request) {
        Ok(response) => format!("{} {}", response.status, String::from_utf8_lossy(&response.body)),
        Err(HttpError::Denied(why)) => format!("denied: {why}"),
        Err(HttpError::Invalid(why)) => format!("invalid: {why}"),
        Err(HttpError::Connection(why)) => format!("connection: {why}"),
        Err(HttpError::TimedOut) => "timed out".to_owned(),
        Err(HttpError::TooLarge(max)) => format!("longer than {max}"),
    }
}
