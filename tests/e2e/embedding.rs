//! The library in an application with policies and channels of its own.

use std::sync::{Arc, Mutex};

use ace::channel::Channel;
use ace::message::{
    Attempt, CallContext, ChannelReport, DeliveryError, Denial, Fault, FaultKind, OnError, Outcome, PolicyResult,
    Receipt, Rule, TemplateFile, Verdict,
};
use ace::policy::{Policy, StubPolicy};
use ace::{Ace, Config, Message, MessageType, Recipient, Report};
use async_trait::async_trait;

use crate::servers::Smtpd;
use crate::support::{GRANTED, Home, mail_home};

/// A channel of the application, which stores what it gets.
#[derive(Clone, Default)]
struct Inbox {
    files: Vec<TemplateFile>,
    taken: Arc<Mutex<Vec<(String, String)>>>,
}

#[async_trait]
impl Channel for Inbox {
    fn name(&self) -> &str {
        "inbox"
    }

    fn channel_type(&self) -> &str {
        "inbox"
    }

    fn template_files(&self) -> &[TemplateFile] {
        &self.files
    }

    async fn deliver(
        &self,
        message: &Arc<Message>,
        rendered: &[(String, String)],
        attempt: &Attempt,
        _: &CallContext,
    ) -> Result<Receipt, DeliveryError> {
        assert_eq!(attempt.idempotency_key, format!("{}.inbox", message.uuid));
        self.taken.lock().expect("no panic before").push((message.uuid.to_string(), rendered[0].1.clone()));
        Ok(Receipt { provider_id: Some("kept".to_owned()), detail: None })
    }
}

/// A policy of the application that always fails.
struct Unsure;

#[async_trait]
impl Policy for Unsure {
    fn name(&self) -> &str {
        "unsure"
    }

    async fn check(&self, _: &Arc<Message>, _: bool, _: &CallContext) -> Result<PolicyResult, Fault> {
        let message = "who knows".to_owned();
        Err(Fault { plugin: "unsure".to_owned(), kind: FaultKind::Error, message, backtrace: None })
    }
}

fn stub(name: &str, denied: &str) -> StubPolicy {
    let denial = Denial { channel_type: denied.to_owned(), reason: Some("the stub says so".to_owned()) };
    StubPolicy { name: name.to_owned(), result: PolicyResult { deny: vec![denial], delay: Vec::new() } }
}

fn inbox() -> Inbox {
    Inbox { files: vec![TemplateFile::required("body.txt")], ..Inbox::default() }
}

/// A home whose message `note` has templates for e-mail and for the inbox.
fn home(server: &Smtpd) -> (Home, Config) {
    let home = mail_home(&server.relay());
    home.file("templates/app/edx_ace/note/inbox/body.txt", "Psst, {{ name }}");
    let config = Config::load(&home.path("ace.toml")).expect("a valid configuration");
    (home, config)
}

fn note() -> Message {
    let mut message_type = MessageType::new("app", "note");
    message_type.context.insert("name", "Ada");
    message_type.personalize(Recipient::new(7, "zoe@learner.example"), None, ace::message::Object::new())
}

async fn send(ace: &Ace, message: Message) -> Report {
    let mut sending = ace.prepare(message, &[]).expect("no limit is unknown");
    while sending.due().is_some() {
        sending.advance().await;
    }
    sending.into_report()
}

#[track_caller]
fn of<'a>(report: &'a Report, channel_type: &str) -> &'a ChannelReport {
    report.channels.iter().find(|c| c.channel_type == channel_type).expect("a report of the type")
}

#[tokio::test]
async fn native_policies_and_channels_work_beside_components() {
    let server = Smtpd::start(&[]);
    let (_home, config) = home(&server);
    let inbox = inbox();
    let ace = Ace::builder(config).policy(stub("no_push", "push"), 50, OnError::Retry).channel(inbox.clone());
    let ace = ace.start().await.expect("it starts");
    let message = note();
    let uuid = message.uuid.to_string();
    let report = send(&ace, message).await;
    ace.close().await;

    assert!(!report.is_failure() && report.is_settled());
    let types: Vec<&str> = report.channels.iter().map(|c| c.channel_type.as_str()).collect();
    assert_eq!(types, ["email", "push", "inbox"]);
    assert!(matches!(of(&report, "email").outcome, Outcome::Sent { .. }));
    assert_eq!(of(&report, "inbox").rule, Some(Rule::FirstOfType));
    assert!(matches!(&of(&report, "push").outcome, Outcome::Denied { reasons } if reasons[0].policy == "no_push"));
    assert_eq!(*inbox.taken.lock().expect("no panic before"), [(uuid.clone(), "Psst, Ada".to_owned())]);
    assert!(server.mail().header("Message-ID").is_some_and(|id| id.contains(&uuid)));
}

#[tokio::test]
async fn explaining_evaluates_every_policy_and_delivers_nothing() {
    let server = Smtpd::start(&[]);
    let (_home, config) = home(&server);
    let inbox = inbox();
    let ace = Ace::builder(config).policy(stub("no_push", "push"), 50, OnError::Retry).channel(inbox.clone());
    let ace = ace.start().await.expect("it starts");
    let report = ace.explain(note(), &["inbox".to_owned()]).await.expect("a known type");
    assert_eq!(of(&report, "email").outcome, Outcome::Excluded);
    let told = of(&report, "inbox");
    assert_eq!(told.outcome, Outcome::Ready);
    assert_eq!(told.rendered.as_ref().expect("rendered")[0].text, "Psst, Ada");
    assert!(inbox.taken.lock().expect("no panic before").is_empty() && server.mails().is_empty());
    assert!(
        ace.explain(note(), &["inbx".to_owned()])
            .await
            .expect_err("unknown")
            .to_string()
            .contains("did you mean \"inbox\"?")
    );
}

#[tokio::test]
async fn all_policies_are_evaluated_in_their_order() {
    let server = Smtpd::start(&[]);
    let (home, config) = home(&server);
    drop(config);
    home.plugin("stub_policy");
    let stub_policy = "[plugins.stub_policy]\nconfig = { deny = ['push'] }\norder = 10\n";
    home.config(&format!("{GRANTED}{}{stub_policy}", server.relay()));
    let config = Config::load(&home.path("ace.toml")).expect("a valid configuration");
    let ace = Ace::builder(config)
        .policy(stub("last", "email"), 20, OnError::Retry)
        .policy(stub("first", "*"), -5, OnError::Retry)
        .policy(Unsure, 15, OnError::Allow);
    let report = send(&ace.start().await.expect("it starts"), note()).await;
    let asked: Vec<&str> = report.policies.iter().map(|p| p.policy.as_str()).collect();
    assert_eq!(asked, ["first", "stub_policy", "unsure", "last"]);
    assert!(matches!(&report.policies[2].verdict, Verdict::Broken { on_error: OnError::Allow, .. }));
    let Outcome::Denied { reasons } = &of(&report, "email").outcome else { panic!("{report:?}") };
    let deniers: Vec<&str> = reasons.iter().map(|r| r.policy.as_str()).collect();
    assert_eq!(deniers, ["first", "last"], "every denial is kept");
    assert!(server.mails().is_empty());
}

#[tokio::test]
async fn an_engine_needs_no_plugins() {
    let home = Home::empty();
    home.file("templates/app/edx_ace/note/inbox/body.txt", "Psst, {{ name }}");
    home.file("ace.toml", "template-dirs = ['templates']\n");
    let config = Config::load(&home.path("ace.toml")).expect("a valid configuration");
    let inbox = inbox();
    let ace = Ace::builder(config).channel(inbox.clone()).start().await.expect("it starts");
    let report = send(&ace, note()).await;
    assert!(matches!(of(&report, "inbox").outcome, Outcome::Sent { .. }), "{report:?}");
    assert!(matches!(of(&report, "email").outcome, Outcome::Unsupported { .. }));
    assert!(!report.is_failure(), "a type without a channel fails nothing that another one carried");
}
