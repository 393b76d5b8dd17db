//! `ace explain`.

use std::fmt::Write;
use std::path::PathBuf;

use ace::Ace;
use ace::config::Config;
use ace::internals::plugin::Plugin;
use ace::message::{Agreement, ChannelReport, Message, Outcome, PolicyReport, Report, Verdict};
use serde::Serialize;
use serde_json::json;

use super::windows::{self, EffectiveSetting};
use super::{FAILED, OK, inform, open, print};

const EXAMPLES: &str = "Examples:
  ace explain message.json
  ace explain --json message.json | jq .report.channels

Policies are evaluated, but what they write is discarded; nothing is delivered.";

#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// A file with one JSON message, or one per line; "-" for standard input
    file: PathBuf,

    /// As if sent only over this channel type or channel; may be repeated
    #[arg(long, value_name = "TYPE|CHANNEL")]
    limit_to: Vec<String>,
}

pub async fn run(config: Config, args: Args, json: bool) -> anyhow::Result<u8> {
    let bytes_max = config.delivery.max_message_bytes;
    let windows = windows::effective(&config);
    let ace = Ace::builder(config).start().await?;
    let (mut input, _) = open(&args.file, bytes_max).await?;
    let mut failed = false;
    while let Some(line) = input.next().await? {
        let number = line.number;
        let message = match line.text.and_then(|text| Message::from_json(&text)) {
            Ok(message) => message,
            Err(errors) => {
                failed = true;
                if json {
                    print(&json!({"line": number, "failed": true, "refused": errors}).to_string())
                } else {
                    inform(&format!("line {number}: {errors}"))
                }
                continue;
            }
        };
        let report = ace.explain(message, &args.limit_to).await.map_err(|e| anyhow::anyhow!("--limit-to: {e}"))?;
        failed |= report.is_failure();
        let readers = readers(&ace, &report);
        if json {
            let delivery: Vec<_> = windows.iter().map(EffectiveSetting::json).collect();
            let failed = report.is_failure();
            let line =
                json!({"line": number, "failed": failed, "report": report, "delivery": delivery, "feedback": readers});
            print(&line.to_string());
        } else {
            print(&(trace(&report, &readers) + &retry_windows(&windows)))
        }
    }
    Ok(if failed { FAILED } else { OK })
}

/// A plugin that may report about messages over a channel.
#[derive(Serialize)]
struct Reader {
    channel: String,
    plugin: String,
    /// Why it does not, if so.
    inactive: Option<String>,
}

/// The plugins that read feedback about the channels of a report.
fn readers(ace: &Ace, report: &Report) -> Vec<Reader> {
    let registry = ace.registry();
    let channels = report.channels.iter().filter_map(|channel| channel.channel.as_ref());
    let readers_of = |channel: &String| {
        let tied = registry.plugins.values().filter(|plugin| plugin.settings.grants.feedback.contains(channel));
        let reader = |plugin: &Plugin| Reader {
            channel: channel.clone(),
            plugin: plugin.name.clone(),
            inactive: plugin.feedback_inactive(),
        };
        tied.map(|plugin| reader(plugin)).collect::<Vec<_>>()
    };
    channels.flat_map(readers_of).collect()
}

/// How long messages are retried, for people.
fn retry_windows(windows: &[EffectiveSetting]) -> String {
    let lines = windows.iter().map(|window| format!("  {}\n", window.line()));
    format!("\nretried for\n{}", lines.collect::<String>())
}

/// The decision trace, for people.
fn trace(report: &Report, readers: &[Reader]) -> String {
    let mut out = format!("{} {}\n\npolicies\n", report.name, report.uuid);
    if report.policies.is_empty() {
        out.push_str("  none\n");
    }
    for policy in &report.policies {
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "  {:<22} {:<14} {:>7} us  {}",
            policy.policy,
            policy.revision,
            policy.took_us,
            verdict(policy)
        );
    }
    for channel in &report.channels {
        channel_trace(&mut out, channel, readers);
    }
    out
}

/// A policy's verdict, for people.
pub fn verdict(report: &PolicyReport) -> String {
    let verdict = verdict_alone(&report.verdict);
    match report.shadow {
        None => verdict,
        Some(Agreement::Differs) => format!("shadow mode, no effect: {verdict}; the decision would differ"),
        Some(_) => format!("shadow mode, no effect: {verdict}"),
    }
}

/// A verdict, whether or not it has an effect.
pub fn verdict_alone(verdict: &Verdict) -> String {
    let result = match verdict {
        Verdict::Broken { fault, on_error } => {
            return format!("broken ({} applies): {}", format!("{on_error:?}").to_lowercase(), fault.message);
        }
        Verdict::Result(result) => result,
        other => return format!("{other:?}"),
    };
    let because = |reason: &Option<String>| reason.as_ref().map(|r| format!(" ({r})")).unwrap_or_default();
    let denials = result.deny.iter().map(|d| format!("denies {}{}", d.channel_type, because(&d.reason)));
    let delays =
        result.delay.iter().map(|d| format!("delays {} until {}{}", d.channel_type, d.not_before, because(&d.reason)));
    let all: Vec<String> = denials.chain(delays).collect();
    if all.is_empty() { "passes".to_owned() } else { all.join("; ") }
}

fn channel_trace(out: &mut String, report: &ChannelReport, readers: &[Reader]) {
    let _ = writeln!(out, "\n{}: {} {}", report.channel_type, report.outcome.state(), report.detail());
    if let (Some(channel), Some(rule)) = (&report.channel, report.rule) {
        let _ = writeln!(out, "  channel    {channel} {} ({})", report.revision, rule.describe());
    }
    if !report.fallback_for.is_empty() {
        let _ = writeln!(out, "  fallback   for {}, which did not carry the message", report.fallback_for.join(", "));
    }
    for reader in readers.iter().filter(|reader| Some(&reader.channel) == report.channel.as_ref()) {
        let inactive = reader.inactive.as_ref().map(|why| format!(", which is not active: {why}")).unwrap_or_default();
        let _ = writeln!(out, "  feedback   {}{inactive}", reader.plugin);
    }
    for passed in &report.passed_over {
        let _ = writeln!(out, "  not        {passed}");
    }
    if let Some(language) = &report.language {
        let note = report.language_note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
        let _ = writeln!(out, "  language   {language}{note}");
    }
    for file in &report.templates {
        let _ = writeln!(out, "  template   {file}");
    }
    if !matches!(report.outcome, Outcome::Ready) {
        return;
    }
    for file in report.rendered.iter().flatten() {
        let _ = writeln!(out, "  --- {} ---\n{}", file.name, file.text.trim_end());
    }
}
