//! What each step of a message's way costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use ace::Ace;
use ace::channel::Channel;
use ace::config::Config;
use ace::internals::mailer::{Email, Mailer};
use ace::internals::presentation::Subject;
use ace::message::{Attempt, CallContext, Denial, Fault, Message, PolicyResult, RenderedFile};
use ace::policy::{self, Policy};
use async_trait::async_trait;
use jiff::Timestamp;

use crate::measure::{Summary, cpu_us, one_core};
use crate::place::{DISCARD, Place};

/// Messages of one round of a stage.
const ROUND: usize = 2_000;

/// CPU microseconds of each step of a message's way, on one thread, without a network.
pub fn stages(place: &Place, summary: &mut Summary) {
    one_core().block_on(steps(place, summary));
}

async fn steps(place: &Place, summary: &mut Summary) {
    let config = Config::load(&place.write_config("discard.toml", DISCARD)).expect("a sound configuration");
    let mailer = Mailer::new(&config.fixed.mailer).expect("a discard relay");
    let ace = Ace::builder(config).start().await.expect("the engine starts");
    let snapshot = ace.snapshot();
    let parsed = place.parsed();
    let types = snapshot.channels.types();
    let channel = snapshot.channels.of_type("email")[0].clone();

    let parse = cpu_us(ROUND, async |i| {
        std::hint::black_box(Message::from_json(&place.messages[i % 64]).expect("a message"));
    })
    .await;
    let policies = cpu_us(ROUND, async |i| {
        policy::channels_for(&snapshot.policies, &types, &parsed[i % 64], Timestamp::UNIX_EPOCH, false).await;
    })
    .await;
    let subject = subject(channel.as_ref());
    let render = cpu_us(ROUND, async |i| {
        std::hint::black_box(snapshot.presentation.render(&parsed[i % 64], &subject).expect("it renders"));
    })
    .await;
    let rendered: Vec<Vec<(String, String)>> = parsed
        .iter()
        .map(|m| snapshot.presentation.render(m, &subject).expect("it renders"))
        .map(|rendered| rendered.files.into_iter().map(|f| (f.name, f.text)).collect())
        .collect();
    let mails = mails(&ace, &parsed);
    let clone = cpu_us(ROUND, async |i| drop(std::hint::black_box(mails[i % 64].clone()))).await;
    let mime =
        cpu_us(ROUND, async |i| drop(mailer.send(mails[i % 64].clone(), "bench", &mut None).await.expect("taken")))
            .await
            - clone;
    let deliver = cpu_us(ROUND, async |i| deliver(channel.as_ref(), &parsed[i % 64], &rendered[i % 64]).await).await;
    let whole = cpu_us(ROUND, async |i| {
        let message = Message::from_json(&place.messages[i % 64]).expect("a message");
        let mut flight = ace.prepare(message, &[]).expect("no limit");
        flight.advance().await;
        assert!(flight.due().is_none(), "settled at the first attempt");
    })
    .await;

    let html: usize = rendered.iter().flatten().filter(|(name, _)| name == "body.html").map(|(_, t)| t.len()).sum();
    let aim = "aim <= 110";
    summary.add("pipeline_cpu_us_per_message", whole, "us", &format!("{aim}; html {} bytes", html / rendered.len()));
    summary.add("stage_parse_us", parse, "us", "");
    summary.add("stage_policies_us", policies, "us", "two WASM policies");
    summary.add("stage_render_us", render, "us", "five templates");
    summary.add("stage_mime_us", mime, "us", "MIME built and dropped");
    summary.add("stage_channel_us", deliver - mime, "us", "WASM e-mail channel, three calls, without the MIME");
    summary.add("policies_and_channel_us", policies + deliver - mime, "us", "aim <= 15");
    policy_calls(&ace, &parsed, summary).await;
}

fn subject(channel: &dyn Channel) -> Subject<'_> {
    Subject {
        channel: channel.name(),
        channel_type: "email",
        files: channel.template_files(),
        action_links: &[],
        tracker_image_sources: &[],
    }
}

/// The mails of the messages, before MIME.
pub fn mails(ace: &Ace, messages: &[Arc<Message>]) -> Vec<Email> {
    let snapshot = ace.snapshot();
    let channel = snapshot.channels.of_type("email")[0].clone();
    let subject = subject(channel.as_ref());
    let rendered = |message| snapshot.presentation.render(message, &subject).expect("it renders").files;
    messages.iter().map(|message| email(message, &rendered(message))).collect()
}

fn email(message: &Message, rendered: &[RenderedFile]) -> Email {
    let file = |name: &str| rendered.iter().find(|f| f.name == name).map(|f| f.text.clone()).unwrap_or_default();
    let address = message.recipient.as_ref().and_then(|r| r.email_address.clone());
    Email {
        sender: Some("Example Learning <no-reply@example.org>".to_owned()),
        recipients: address.into_iter().collect(),
        subject: file("subject.txt").trim().to_owned(),
        text: file("body.txt"),
        html: Some(format!(
            "<!DOCTYPE html><html><head>{}</head><body>{}</body></html>",
            file("head.html"),
            file("body.html")
        )),
        ..Email::default()
    }
}

/// All that the pipeline asks of a channel for one message.
async fn deliver(channel: &dyn Channel, message: &Arc<Message>, rendered: &[(String, String)]) {
    channel.action_links(message, &CallContext::default()).await.expect("no fault");
    channel.tracker_image_sources(message, &CallContext::default()).await.expect("no fault");
    let attempt = Attempt { number: 1, idempotency_key: message.idempotency_key(channel.name()) };
    channel.deliver(message, rendered, &attempt, &CallContext::default()).await.expect("the relay takes it");
}

/// The opt-out policy in plain Rust, on the same facts.
struct NativeOptout(BTreeMap<String, ()>);

#[async_trait]
impl Policy for NativeOptout {
    fn name(&self) -> &str {
        "native_optout"
    }

    async fn check(&self, message: &Arc<Message>, _: bool, _: &CallContext) -> Result<PolicyResult, Fault> {
        let courses = message.context.value("course_ids");
        let courses = courses.as_ref().and_then(|c| c.as_array()).map(Vec::as_slice).unwrap_or_default();
        let user = message.recipient.as_ref().and_then(|r| r.lms_user_id.as_text());
        let mut result = PolicyResult::default();
        if let (Some(user), false, false) = (user, courses.is_empty(), message.is_transactional()) {
            let opted_out = |course: &serde_json::Value| {
                self.0.contains_key(&format!("{user}/{}", course.as_str().unwrap_or_default()))
            };
            if courses.iter().all(opted_out) {
                result.deny.push(Denial { channel_type: "email".to_owned(), reason: None });
            }
        }
        Ok(result)
    }
}

/// The same policy as a component and as a part of the host.
async fn policy_calls(ace: &Ace, parsed: &[Arc<Message>], summary: &mut Summary) {
    let (snapshot, call) = (ace.snapshot(), CallContext::default());
    let slot = snapshot.policies.iter().find(|s| s.policy.name() == "bulk_email_optout").expect("it is enabled");
    let native = NativeOptout(BTreeMap::from([("3/course-v1:Org0+C0+2026".to_owned(), ())]));
    let wasm_us =
        cpu_us(ROUND * 5, async |i| drop(slot.policy.check(&parsed[i % 64], false, &call).await.expect("a verdict")))
            .await;
    let native_us =
        cpu_us(ROUND * 5, async |i| drop(native.check(&parsed[i % 64], false, &call).await.expect("a verdict"))).await;
    summary.add("policy_call_wasm_us", wasm_us, "us", "bulk_email_optout as a component, warm instance");
    summary.add("policy_call_native_us", native_us, "us", "the same in plain Rust");
    summary.add("policy_call_wasm_over_native", wasm_us / native_us, "x", "");
}
