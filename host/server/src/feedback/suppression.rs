//! Events after which an address gets no more mail.

use ace::message::FeedbackEvent;
use ace::suppression::{self, Reason, Suppression};

use super::Intake;

impl Intake {
    /// Suppresses the addresses of new events that are vouched for, as ace.toml says.
    pub(super) async fn suppress(&self, plugin: &str, events: &[FeedbackEvent]) -> Result<(), String> {
        let suppressing: Vec<(&FeedbackEvent, Reason)> =
            events.iter().filter_map(|event| Some((event, self.suppresses(event)?))).collect();
        if suppressing.is_empty() {
            return Ok(());
        }
        // A repeated event must not undo what an operator has changed meanwhile.
        let ids = suppressing.iter().map(|(event, _)| (plugin.to_owned(), event.id.clone())).collect();
        let known = self.queue.is_feedback_known(ids).await.map_err(|error| error.to_string())?;
        for ((event, reason), _) in suppressing.into_iter().zip(known).filter(|(_, is_known)| !is_known) {
            self.suppress_one(plugin, event, reason).await?;
        }
        Ok(())
    }

    fn suppresses(&self, event: &FeedbackEvent) -> Option<Reason> {
        let reason = match event.kind.as_str() {
            "bounced" | "address-dead" if event.is_permanent => Reason::HardBounce,
            "complained" => Reason::Complaint,
            "unsubscribed" => Reason::Unsubscribe,
            _ => return None,
        };
        (event.is_vouched && event.address.is_some() && self.suppress.contains(&reason)).then_some(reason)
    }

    async fn suppress_one(&self, plugin: &str, event: &FeedbackEvent, reason: Reason) -> Result<(), String> {
        // An address that cannot be a key is one to which no message can be sent.
        let address = event.address.as_ref().map(|address| suppression::key(&address.kind, &address.address));
        let Some(Ok(key)) = address else { return Ok(()) };
        let now = self.ace.now();
        let time = event.at.unwrap_or(now).to_string();
        let (scope, source) = (reason.default_scope(), plugin.to_owned());
        let entry = Suppression { reason, scope, source, time, detail: event.reason.clone() };
        suppression::add(self.ace.keyvalue(), &key, entry, now).await.map_err(|error| error.to_string())
    }
}
