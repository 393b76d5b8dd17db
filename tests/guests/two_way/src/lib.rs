//! A channel of the type `email` that delivers nothing, and reads feedback: a GET whose query is the provider's id of the message. It reads
//! none unless the public URL is set.

use ace_plugin::Message;
use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::feedback::{self, Event, Feedback, FeedbackError, Received, Request};

struct TwoWay;

ace_plugin::export_channel!(TwoWay);
ace_plugin::export_feedback!(TwoWay);

impl Channel for TwoWay {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("email").file("subject.txt")
    }

    fn deliver(message: &Message, _: Rendered, _: &Attempt) -> Result<Receipt, DeliveryError> {
        Ok(Receipt::default().provider_id(format!("provider-{}", message.uuid())))
    }
}

impl Feedback for TwoWay {
    fn enabled() -> Result<(), String> {
        feedback::public_url()
            .map(|_| ())
            .ok_or_else(|| "set server.public-url: its signatures cover the URL".to_owned())
    }

    fn receive(request: &Request) -> Result<Received, FeedbackError> {
        let id = request.query().unwrap_or_default();
        Ok(Received::of([Event::new(format!("read-{id}"), "opened").of_provider_id(id)]))
    }
}
