//! Random operations on feedback and messages, compared with a model in memory.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::person::address_key;
use crate::queue::{Delivery, FEEDBACK_WAIT, Lookup, NewFeedback};

const CHANNELS: [&str; 2] = ["first", "second"];
/// The numbers of messages are below this.
const MESSAGES: u128 = 4;

#[derive(Debug, Clone)]
enum Op {
    /// Sends a message over one of the channels, or over one that nobody reports about.
    Send(u128, Option<usize>),
    Report(Report),
    Announce,
    /// Erases the recipient of a message.
    Erase(u128),
    Pass(i64),
    Reopen,
}

#[derive(Debug, Clone)]
struct Report {
    id: usize,
    channels: Vec<usize>,
    uuid: Option<u128>,
    provider_id: Option<u128>,
    address: Option<u128>,
}

/// Feedback in the model, in the order in which it was stored.
struct Known {
    report: Report,
    message: Option<u128>,
    /// When it is announced; `None` after that.
    due: Option<i64>,
}

struct Comparison {
    home: Home,
    queue: Option<Queue>,
    now: i64,
    /// Sent messages, and the channel of each.
    sent: BTreeMap<u128, Option<usize>>,
    known: Vec<Known>,
}

fn op() -> impl Strategy<Value = Op> {
    let number = || 0..MESSAGES;
    let report = (0_usize..10, vec(0_usize..2, 0..3), option::of(number()), option::of(number()), option::of(number()));
    let report = report.prop_map(|(id, channels, uuid, provider_id, address)| Report {
        id,
        channels,
        uuid,
        provider_id,
        address,
    });
    prop_oneof![
        3 => (number(), option::of(0_usize..2)).prop_map(|(number, channel)| Op::Send(number, channel)),
        5 => report.prop_map(Op::Report),
        2 => Just(Op::Announce),
        1 => number().prop_map(Op::Erase),
        1 => (0_i64..4_000).prop_map(Op::Pass),
        1 => Just(Op::Reopen),
    ]
}

fn email(number: u128) -> String {
    format!("user{number}@example.com")
}

impl Report {
    fn leads_to(&self, number: u128, channel: Option<usize>) -> bool {
        channel.is_some_and(|channel| self.channels.contains(&channel))
            && (self.uuid == Some(number) || self.provider_id == Some(number))
    }

    fn has_name(&self) -> bool {
        !self.channels.is_empty() && (self.uuid.is_some() || self.provider_id.is_some())
    }

    fn to_new(&self) -> NewFeedback {
        let lookup = Lookup {
            channels: self.channels.iter().map(|channel| CHANNELS[*channel].to_owned()).collect(),
            uuid: self.uuid.map(Uuid::from_u128),
            provider_id: self.provider_id.map(|number| format!("p-{number}")),
            message_id: None,
        };
        let address = self.address.map(|number| address_key("email", &email(number)));
        NewFeedback {
            plugin: "p".to_owned(),
            id: self.id.to_string(),
            lookup,
            address,
            body: vec![b'0' + self.id as u8],
        }
    }
}

impl Comparison {
    fn queue(&self) -> &Queue {
        self.queue.as_ref().expect("it is open")
    }

    async fn step(&mut self, op: Op) {
        match op {
            Op::Send(number, channel) if !self.sent.contains_key(&number) => self.send(number, channel).await,
            Op::Send(..) => {}
            Op::Report(report) => self.report(report).await,
            Op::Announce => self.announce().await,
            Op::Erase(number) => {
                self.queue().erase(None, Some(email(number))).await.expect("erased");
                self.sent.remove(&number);
                self.known.retain(|known| known.message != Some(number) && known.report.address != Some(number));
            }
            Op::Pass(seconds) => self.now += seconds,
            Op::Reopen => {
                self.queue = None;
                self.queue = Some(self.home.open_with(self.home.settings(), at(self.now)));
            }
        }
        for number in 0..MESSAGES {
            let stored = self.queue().feedback(Uuid::from_u128(number), 100).await.expect("asked");
            let wanted = self.known.iter().filter(|known| known.message == Some(number));
            let wanted: Vec<Vec<u8>> = wanted.map(|known| known.report.to_new().body).collect();
            assert_eq!(stored.into_iter().map(|feedback| feedback.body).collect::<Vec<_>>(), wanted, "{number}");
        }
    }

    async fn send(&mut self, number: u128, channel: Option<usize>) {
        let new = New { email: Some(email(number)), ..new(number, TRANSACTIONAL) };
        self.queue().accept(vec![new], at(self.now)).await.expect("accepted");
        let claimed = self.queue().claim(Claim { max: 1, bulk_max: 1 }, at(self.now)).await.expect("claimed").messages;
        let delivery = channel.map(|channel| Delivery {
            channel: CHANNELS[channel].to_owned(),
            provider_id: Some(format!("p-{number}")),
            message_id: None,
        });
        let deliveries = delivery.into_iter().collect();
        let settlement = Settlement::Done(Done { deliveries, ..Done::new(State::Sent, b"{}".to_vec()) });
        settle(self.queue(), &claimed, settlement).await;
        self.sent.insert(number, channel);
        let waiting =
            self.known.iter_mut().filter(|known| known.message.is_none() && known.due.is_some_and(|due| due > 0));
        for known in waiting.filter(|known| known.report.leads_to(number, channel)) {
            (known.message, known.due) = (Some(number), Some(0));
        }
    }

    async fn report(&mut self, report: Report) {
        let stored = self.queue().accept_feedback(vec![report.to_new()], at(self.now)).await.expect("stored");
        if self.known.iter().any(|known| known.report.id == report.id) {
            return assert_eq!(stored, 0);
        }
        assert_eq!(stored, 1);
        let is_sent = |number: &u128| {
            self.sent.get(number).copied().flatten().is_some_and(|channel| report.channels.contains(&channel))
        };
        let message = report.uuid.filter(is_sent).or(report.provider_id.filter(is_sent));
        let waits = message.is_none() && report.has_name();
        let wait = i64::try_from(FEEDBACK_WAIT.as_secs()).expect("an hour");
        let due = Some(if waits { self.now + wait } else { 0 });
        self.known.push(Known { report, message, due });
    }

    async fn announce(&mut self) {
        let event = |_: &crate::queue::Feedback| event("message.feedback");
        let announced = self.queue().announce_feedback(Some(event), 100, at(self.now)).await.expect("announced");
        let announced = announced.into_iter().map(|one| (one.message.map(|uuid| uuid.as_u128()), one.body));
        let now = self.now;
        let mut due: Vec<&mut Known> =
            self.known.iter_mut().filter(|known| known.due.is_some_and(|due| due <= now)).collect();
        due.sort_by_key(|known| known.due);
        let wanted: Vec<_> = due.iter().map(|known| (known.message, known.report.to_new().body)).collect();
        assert_eq!(announced.collect::<Vec<_>>(), wanted);
        due.into_iter().for_each(|known| known.due = None);
    }
}

/// The property: after any sequence of operations, each message has the feedback that the model says, and each event is announced once.
///
/// Blocks, with its own runtime.
pub(super) fn feedback_is_as_the_model_says(new_harness: NewHarness<'_>) {
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let tested = TestRunner::new(config).run(&vec(op(), 1..60), |ops| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let home = Home::new(new_harness);
            let queue = Some(home.open_with(home.settings(), at(1_000)));
            let mut comparison = Comparison { home, queue, now: 1_000, sent: BTreeMap::new(), known: Vec::new() };
            for op in ops {
                comparison.step(op).await;
            }
        });
        Ok(())
    });
    tested.unwrap_or_else(|error| panic!("{error}"));
}
