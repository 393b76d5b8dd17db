//! A channel of the type `type` that posts to each address of the kind `kind`, below `url` (settings). It notes the outcome of each: 2xx
//! sent, 410 dropped, 5xx retry, others failed. 429 and 403 hold the channel. If `context.abuse` is true, it notes what it must not.

use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::delivery::{self, Note};
use ace_plugin::http::{self, Request, Response};
use ace_plugin::{Message, Settings, time};

struct AddressProbe;

ace_plugin::export_channel!(AddressProbe);

impl Channel for AddressProbe {
    fn describe() -> ChannelInfo {
        ChannelInfo::new(Settings.get::<String>("type").ok().flatten().unwrap_or_else(|| "probe".to_owned()))
    }

    fn enabled() -> Result<(), String> {
        // Neither has an effect here.
        delivery::hold(None, "not within a delivery");
        delivery::note(&Note::sent("push-token", "not within a delivery"));
        Ok(())
    }

    fn deliver(message: &Message, _: Rendered, _: &Attempt) -> Result<Receipt, DeliveryError> {
        let kind = Settings.get::<String>("kind")?.unwrap_or_else(|| "push-token".to_owned());
        if message.context_is_true("/abuse") {
            abuse(&kind);
        }
        let recipient = message.recipient();
        let addresses: Vec<&str> = recipient.iter().flat_map(|recipient| recipient.contacts_of(&kind)).collect();
        let mut is_dropped = true;
        for address in &addresses {
            is_dropped &= send(&kind, address)?;
        }
        let known = delivery::noted()?.len();
        match addresses.len() {
            0 if known == 0 => Err(DeliveryError::Skipped(format!("the recipient has no {kind}"))),
            1.. if is_dropped => Err(DeliveryError::Skipped(format!("every {kind} was dropped"))),
            sent => Ok(Receipt::default().provider_id(format!("{sent} now, {known} before"))),
        }
    }
}

/// Posts to an address. Returns whether it was dropped.
fn send(kind: &str, address: &str) -> Result<bool, DeliveryError> {
    let url = Settings.get::<String>("url")?.unwrap_or_default();
    let response = http::fetch(&Request::post(format!("{url}/{address}")).body("Hi"))?;
    let id = String::from_utf8_lossy(&response.body).into_owned();
    match response.status {
        200..=299 => delivery::note(&Note::sent(kind, address).provider_id(id)),
        410 => delivery::note(&Note::dropped(kind, address).code("UNREGISTERED")),
        status @ 500.. => delivery::note(&Note::retry(kind, address).code(status.to_string())),
        status @ (403 | 429) => return Err(held(status, &response)),
        status => {
            delivery::note(&Note::failed(kind, address).code(status.to_string()));
            return Err(DeliveryError::Fatal(format!("HTTP {status}")));
        }
    }
    Ok(response.status == 410)
}

fn held(status: u16, response: &Response) -> DeliveryError {
    let until = response.retry_after(time::now());
    delivery::hold(until, if status == 429 { "its quota is used up" } else { "its key was revoked" });
    DeliveryError::recoverable(format!("HTTP {status}"))
}

fn abuse(kind: &str) {
    for address in 0..300 {
        delivery::note(&Note::failed("unknown", format!("address {address}")));
    }
    delivery::note(&Note::sent(kind, ""));
    delivery::note(&Note::sent(kind, "x".repeat(100_000)));
    delivery::note(&Note::sent("", "a"));
}
