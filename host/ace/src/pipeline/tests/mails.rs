//! Mails that a relay accepted only for some recipients. The relay's replies take precedence over the channel's result.

use super::*;
use crate::message::{MailRecord, RecipientRecord, RecipientState};
use RecipientState::{Accepted, Deferred, Refused};

const KEY: &str = "smtp";

/// The record of the mail to Ann, with a copy to Bob, over this channel.
fn mail(flight: &InFlight, channel: &str, ann: RecipientState, bob: RecipientState) -> MailRecord {
    let recipient = |name: &str, main, state| RecipientRecord {
        address: format!("{name}@example.com"),
        main,
        state,
        answer: if state == Accepted { String::new() } else { format!("45x {name} is busy") },
    };
    MailRecord {
        key: flight.message.idempotency_key(channel),
        message_id: "<id@campus.example>".into(),
        date: 7,
        answer: "250 queued".into(),
        recipients: vec![recipient("ann", true, ann), recipient("bob", false, bob)],
    }
}

fn states(flight: &InFlight) -> Vec<RecipientState> {
    email(flight).recipients.iter().map(|recipient| recipient.state).collect()
}

#[tokio::test]
async fn a_deferred_copy_is_retried_whatever_the_channel_returns() {
    let fatal = || Err(DeliveryError::Fatal("I give up".into()));
    let skipped = || Err(DeliveryError::Skipped("not mine".into()));
    for answer in [|| Ok(Receipt::default()), fatal, skipped, || recoverable("again", None)] {
        let channel = Script::new(KEY, vec![answer(), Ok(Receipt::default())]);
        let snapshot = snapshot(vec![], &[&channel], &[]);
        let mut flight = flight(&snapshot);
        let first = mail(&flight, KEY, Accepted, Deferred);
        channel.mails(&[&first, &mail(&flight, KEY, Accepted, Accepted)]);
        flight.advance().await;
        assert_eq!((email(&flight).outcome.state(), states(&flight)), ("retry", vec![Accepted, Deferred]));
        let mut flight = stored_and_resumed(&flight, &snapshot);
        run(&mut flight).await;
        assert_eq!((email(&flight).outcome.state(), channel.attempts()), ("sent", vec![1, 2]));
        assert_eq!(states(&flight), [Accepted, Accepted]);
        assert_eq!(channel.known(), [vec![], vec![first]], "the second attempt knew of the first");
    }
}

#[tokio::test]
async fn a_mail_is_sent_if_only_copies_are_missing_at_the_end_of_the_window() {
    let receipt = Receipt { provider_id: Some("<id@campus.example>".into()), detail: None };
    let answers = [vec![Ok(receipt.clone())], vec![Err(DeliveryError::Fatal("I give up".into()))]];
    for (first, provider_id) in answers.into_iter().zip(["<id@campus.example>"; 2]) {
        let channel = Script::new(KEY, first.into_iter().chain((0..9).map(|_| recoverable("busy", None))).collect());
        let other = Script::new("other", vec![]);
        let mut flight = flight(&snapshot(vec![], &[&channel, &other], &["other"]));
        channel.mails(&[&mail(&flight, KEY, Accepted, Deferred)]);
        assert!(run(&mut flight).await.len() > 2);
        let Outcome::Sent { receipt, fault: None } = &email(&flight).outcome else { panic!("{:?}", email(&flight)) };
        assert_eq!(receipt.provider_id.as_deref(), Some(provider_id));
        assert_eq!(states(&flight), [Accepted, Deferred]);
        assert!(other.attempts().is_empty(), "whom it is for has it");
    }
}

#[tokio::test]
async fn the_main_recipient_decides_and_a_failover_omits_recipients_that_have_the_mail() {
    for (ann, state) in [(Deferred, "expired"), (Refused, "failed")] {
        let alone = Script::new(KEY, vec![]);
        let mut one = flight(&snapshot(vec![], &[&alone], &[]));
        alone.mails(&[&mail(&one, KEY, ann, Accepted)]);
        run(&mut one).await;
        assert_eq!((email(&one).outcome.state(), states(&one)), (state, vec![ann, Accepted]));
        let (Outcome::Failed { error } | Outcome::Expired { error: Some(error) }) = &email(&one).outcome else {
            panic!()
        };
        assert_eq!(error, "ann@example.com: 45x ann is busy");

        let (first, second) = (Script::new(KEY, vec![]), Script::new("second", vec![]));
        let mut flight = flight(&snapshot(vec![], &[&first, &second], &["second"]));
        first.mails(&[&mail(&flight, KEY, ann, Accepted)]);
        run(&mut flight).await;
        assert_eq!((email(&flight).outcome.state(), email(&flight).channel.as_deref()), ("sent", Some("second")));
        let known = second.known().remove(0);
        assert_eq!(known[0].key, flight.message.idempotency_key("second"));
        let left_out: Vec<&str> = known[0].recipients.iter().map(|recipient| recipient.address.as_str()).collect();
        assert_eq!(left_out, ["bob@example.com"]);
    }
}

#[tokio::test]
async fn a_mail_that_all_recipients_have_is_sent_even_if_the_channel_fails_afterwards() {
    for answer in [recoverable("its other half failed", None), Err(DeliveryError::Fatal("no".into()))] {
        let channel = Script::new(KEY, (0..9).map(|_| answer.clone()).collect());
        let other = Script::new("other", vec![]);
        let mut flight = flight(&snapshot(vec![], &[&channel, &other], &["other"]));
        let all = MailRecord { recipients: vec![], ..mail(&flight, KEY, Accepted, Accepted) };
        channel.mails(&[&all]);
        run(&mut flight).await;
        assert_eq!((email(&flight).outcome.state(), other.attempts()), ("sent", vec![]));
        assert!(email(&flight).recipients.is_empty(), "there is nothing to tell apart");
        assert!(channel.known()[1..].iter().all(|known| known[..] == [all.clone()]));
    }
}

#[tokio::test]
async fn a_second_mail_of_a_delivery_does_not_affect_the_first() {
    let channel = Script::new(KEY, (0..9).map(|_| recoverable("busy", None)).collect());
    let mut flight = flight(&snapshot(vec![], &[&channel], &[]));
    let own = MailRecord { recipients: vec![], ..mail(&flight, KEY, Accepted, Accepted) };
    let [second, third] =
        [".second", ".third"].map(|tail| MailRecord { key: format!("{}{tail}", own.key), ..own.clone() });
    channel.mails(&[&second, &third]);
    run(&mut flight).await;
    assert_eq!(email(&flight).outcome.state(), "expired");
}

#[tokio::test]
async fn at_most_once_never_repeats_a_mail_that_may_have_been_sent() {
    let channel = Script::new(KEY, vec![]);
    let snapshot = at_most_once(snapshot(vec![], &[&channel], &[]));
    let mut first = flight(&snapshot);
    channel.mails(&[&mail(&first, KEY, Accepted, Deferred)]);
    first.advance().await;
    assert!(first.must_be_recorded());
    first.advance().await;
    NOW.set(1_005);
    first.advance().await;
    assert!(first.must_be_recorded() && channel.attempts() == [1]);
    // The host ends during the attempt for the copy. The main recipient has the mail.
    let cut = stored_and_resumed(&first, &snapshot);
    assert_eq!((email(&cut).outcome.state(), states(&cut)), ("sent", vec![Accepted, Deferred]));

    for answer in [recoverable("no answer after the mail was sent", None), Err(DeliveryError::Fatal("no".into()))] {
        let channel = Script::new(KEY, vec![answer]);
        channel.is_uncertain.store(true, Ordering::Relaxed);
        let snapshot = at_most_once(super::snapshot(vec![], &[&channel], &[]));
        let mut flight = flight(&snapshot);
        flight.advance().await;
        flight.advance().await;
        assert_eq!((email(&flight).outcome.state(), flight.due()), ("maybe_sent", None));
    }
}

/// Progress of earlier versions has no mails.
#[tokio::test]
async fn progress_of_an_earlier_version_is_resumed() {
    let channel = Script::new(KEY, vec![recoverable("busy", None)]);
    let snapshot = snapshot(vec![], &[&channel], &[]);
    let mut first = flight(&snapshot);
    first.advance().await;
    let stored = serde_json::to_value(first.progress()).expect("it can be written");
    assert!(!stored.to_string().contains("mails") && !stored.to_string().contains("recipients"), "{stored}");
    let progress = serde_json::from_value(stored).expect("and read");
    let mut second = InFlight::resume(snapshot.clone(), first.message.clone(), progress);
    channel.mails(&[&mail(&second, KEY, Accepted, Deferred)]);
    run(&mut second).await;
    assert_eq!((email(&second).outcome.state(), states(&second)), ("sent", vec![Accepted, Deferred]));
}

/// Recipients that have a mail do not get it again when a dead letter is retried, not even at a later attempt.
#[tokio::test]
async fn a_retried_dead_letter_omits_recipients_that_have_the_mail() {
    let channel = Script::new(KEY, vec![]);
    let snapshot = snapshot(vec![], &[&channel], &[]);
    let mut dead = flight(&snapshot);
    let own = mail(&dead, KEY, Refused, Accepted);
    let tail = |record: &MailRecord, tail| MailRecord { key: format!("{}{tail}", record.key), ..record.clone() };
    let whole = MailRecord { recipients: vec![], ..tail(&own, ".second") };
    let nobodys = MailRecord { recipients: own.recipients[..1].to_vec(), ..tail(&own, ".third") };
    *channel.answers.lock().expect("no panic") = vec![Err(DeliveryError::Fatal("no".into()))];
    channel.mails_at_once(&[&own, &whole, &nobodys]);
    run(&mut dead).await;
    assert_eq!(email(&dead).outcome.state(), "failed");

    let left = MailRecord { recipients: own.recipients[1..].to_vec(), ..own.clone() };
    for _ in 0..2 {
        let kept = serde_json::to_value(dead.retained_progress().expect("a copy went out")).expect("it can be written");
        let kept = serde_json::from_value(kept).expect("and read");
        let mut again = InFlight::resume(snapshot.clone(), dead.message.clone(), kept);
        assert_eq!((email(&again).outcome.state(), email(&again).attempts), ("retry", 0), "from the beginning");
        run(&mut again).await;
        assert_eq!(channel.known().last(), Some(&vec![left.clone(), whole.clone()]), "with the Message-IDs of before");
        assert_eq!((email(&again).outcome.state(), states(&again)), ("failed", vec![Refused, Accepted, Refused]));
        dead = again;
    }

    let kept = dead.retained_progress().expect("a copy went out");
    channel.mails(&[&mail(&dead, KEY, Accepted, Accepted)]);
    let mut sent = InFlight::resume(snapshot, dead.message.clone(), kept);
    run(&mut sent).await;
    assert_eq!((email(&sent).outcome.state(), states(&sent)), ("sent", vec![Accepted, Accepted]));
    assert!(sent.retained_progress().is_none(), "nothing is left to know");
}

/// Another channel omits these recipients too, and an abandoned message retains its mails.
#[tokio::test]
async fn another_channel_or_an_abandoned_message_omits_recipients_that_have_the_mail() {
    let channel = Script::new(KEY, (0..9).map(|_| recoverable("busy", None)).collect());
    let before = snapshot(vec![], &[&channel], &[]);
    let mut dead = flight(&before);
    channel.mails(&[&mail(&dead, KEY, Deferred, Accepted)]);
    dead.advance().await;
    dead.abandon("it ends the process");
    assert_eq!((email(&dead).outcome.state(), dead.due()), ("failed", None));
    let other = Script::new("other", vec![]);
    let kept = dead.retained_progress().expect("a copy went out");
    let mut again = InFlight::resume(snapshot(vec![], &[&other], &[]), dead.message.clone(), kept);
    run(&mut again).await;
    let known = other.known().remove(0);
    assert_eq!((known[0].key.as_str(), known[0].recipients.len()), (&*dead.message.idempotency_key("other"), 1));
    assert_eq!(known[0].message_id, "<id@campus.example>");
}
