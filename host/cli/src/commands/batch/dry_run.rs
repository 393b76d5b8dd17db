//! `ace batch --dry-run`: what would become of each row, without sending. `--test-send`: one message to oneself.

use std::collections::BTreeMap;

use ace::message::{Member, Message, MessageType, Outcome, Report};
use futures_util::stream::{FuturesUnordered, StreamExt};
use indicatif::ProgressBar;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::recipients::Recipients;
use super::text::FileFault;
use crate::commands::client::Client;
use crate::commands::tables::{Table, text};
use crate::commands::{FAILED, OK, counted, print};

/// Messages that are asked about at once.
const CONCURRENCY: usize = 16;
/// Rows that are read ahead.
const ROWS_AHEAD: usize = 64;
/// Different reasons that are listed.
const REASONS_MAX: usize = 20;
/// Faulty rows that are listed.
const FAULTS_MAX: usize = 50;
/// Seconds that a test is waited for.
const TEST_WAIT_S: u64 = 60;

/// What would become of the rows.
#[derive(Default)]
struct Tally {
    rows: u64,
    ready: u64,
    /// Why messages would not be sent.
    reasons: BTreeMap<String, u64>,
    faults: Vec<String>,
    faulty: u64,
}

/// What would become of one row.
enum Verdict {
    Ready,
    Not(String),
    Faulty(String),
}

/// Asks the server about the rows, or about a sample of them, spread over the file.
pub async fn run(
    client: &Client,
    kind: &MessageType,
    recipients: Recipients,
    sample: Option<u64>,
    bar: &ProgressBar,
) -> anyhow::Result<u8> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(ROWS_AHEAD);
    let reading = tokio::task::spawn_blocking(move || read(&recipients, sample, &sender));
    let (mut tally, mut asked) = (Tally::default(), FuturesUnordered::new());
    while let Some(row) = receiver.recv().await {
        match row {
            Err(fault) => tally.add(Verdict::Faulty(fault.to_string())),
            Ok((line, row)) => asked.push(ask(client, kind, line, row)),
        }
        if asked.len() == CONCURRENCY
            && let Some(verdict) = asked.next().await
        {
            tally.add(verdict?);
        }
        bar.set_position(tally.rows);
    }
    while let Some(verdict) = asked.next().await {
        tally.add(verdict?);
        bar.set_position(tally.rows);
    }
    bar.finish_and_clear();
    reading.await??;
    Ok(tally.finish())
}

/// Reads the rows that are asked about.
fn read(
    recipients: &Recipients,
    sample: Option<u64>,
    sender: &tokio::sync::mpsc::Sender<Result<(u64, Vec<u8>), FileFault>>,
) -> Result<(), FileFault> {
    let step = match sample {
        Some(sample) => (recipients.rows()?.count() as u64).div_ceil(sample).max(1),
        None => 1,
    };
    for (row, at) in recipients.rows()?.zip(0..) {
        // Every faulty row is reported, whether or not it is in the sample. Fails if the server cannot be asked any more.
        if (row.is_err() || at % step == 0) && sender.blocking_send(row).is_err() {
            break;
        }
    }
    Ok(())
}

async fn ask(client: &Client, kind: &MessageType, line: u64, row: Vec<u8>) -> anyhow::Result<Verdict> {
    let message = match Member::from_json(&row) {
        Ok(member) => message(kind, member),
        Err(error) => return Ok(Verdict::Faulty(format!("line {line}: {error}"))),
    };
    let request = client.request(Method::POST, "/v1/messages")?.query(&[("dry_run", "true")]);
    let request = request.header("content-type", "application/json").body(message.to_json());
    let response = client.send_unchecked(request).await?;
    if response.status() == StatusCode::UNPROCESSABLE_ENTITY {
        let problem: Value = response.json().await?;
        return Ok(Verdict::Faulty(format!("line {line}: {}", text(&problem["detail"]))));
    }
    let answer: Value = client.check(response).await?.json().await?;
    let report: Report = serde_json::from_value(answer["report"].clone())?;
    let is_ready = report.channels.iter().any(|channel| matches!(channel.outcome, Outcome::Ready));
    Ok(match report.reason() {
        _ if is_ready && !report.is_failure() => Verdict::Ready,
        reason => Verdict::Not(reason.unwrap_or_else(|| "no channel type".to_owned())),
    })
}

fn message(kind: &MessageType, member: Member) -> Message {
    let personal = member.personal;
    kind.personalize(personal.recipient, personal.language, personal.user_context)
}

impl Tally {
    fn add(&mut self, verdict: Verdict) {
        self.rows += 1;
        match verdict {
            Verdict::Ready => self.ready += 1,
            Verdict::Not(reason) => *self.reasons.entry(reason).or_default() += 1,
            Verdict::Faulty(fault) => {
                self.faulty += 1;
                if self.faults.len() < FAULTS_MAX {
                    self.faults.push(fault);
                }
            }
        }
    }

    /// Prints the result. The exit code is 1 if a row is faulty.
    fn finish(self) -> u8 {
        let not: u64 = self.reasons.values().sum();
        let rows = counted(self.rows, "row");
        print(&format!(
            "{rows}: {} would be sent, {not} would not, {} faulty; nothing was sent",
            self.ready, self.faulty
        ));
        let mut reasons: Vec<(String, u64)> = self.reasons.into_iter().collect();
        reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        let mut table = Table::new(["rows", "why not"]);
        reasons.into_iter().take(REASONS_MAX).for_each(|(reason, n)| table.add_row([n.to_string(), reason]));
        if !table.is_empty() {
            table.print();
        }
        self.faults.iter().for_each(|fault| print(fault));
        if self.faulty > 0 { FAILED } else { OK }
    }
}

/// Sends the message of the first row to another address.
pub async fn test_send(
    client: &Client,
    kind: &MessageType,
    recipients: Recipients,
    address: String,
) -> anyhow::Result<u8> {
    let first = tokio::task::spawn_blocking(move || recipients.rows()?.next().transpose()).await??;
    let (_, row) = first.ok_or_else(|| anyhow::anyhow!("the file of recipients has no row to test with"))?;
    let mut member = Member::from_json(&row)?;
    member.personal.recipient.email_address = Some(address.clone());
    let message = message(kind, member);
    let request = client.request(Method::POST, "/v1/messages")?.query(&[("wait", TEST_WAIT_S)]);
    let request = request.header("content-type", "application/json").body(message.to_json());
    let sent: Value = client.fetch(request).await?;
    let report = serde_json::from_value::<Report>(sent["report"].clone()).ok();
    let reason = report.and_then(|report| report.reason()).map(|reason| format!(": {reason}")).unwrap_or_default();
    let state = text(&sent["state"]).replace('_', " ");
    print(&format!("test message {} to {address}: {state}{reason}", text(&sent["uuid"])));
    Ok(if sent["state"] == json!("sent") { OK } else { FAILED })
}
