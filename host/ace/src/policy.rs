//! Asks every policy and folds the verdicts. A policy only ever takes channel types away or delays them.
//!
//! "No", "not yet" and "broken" stay three different things: a policy that breaks has said nothing, and its `on-error`
//! decides what that means.

pub mod shadow;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use tracing::Instrument;

use crate::message::{
    Agreement, CallContext, ChannelType, EVERY_TYPE, Fault, FaultKind, Message, OnError, PolicyReport, PolicyResult,
    Reason, Verdict,
};
use crate::monitoring::digest::{self, Failure};
use crate::monitoring::trace;
use crate::plugin::Runtime;
use shadow::ShadowLog;

/// Something that judges messages: a plugin, or what an embedding application registers.
#[async_trait]
pub trait Policy: Send + Sync {
    /// Its name in reports and in the configuration.
    fn name(&self) -> &str;

    /// Its revision, where it has one.
    fn revision(&self) -> &str {
        ""
    }

    /// Judges one message. `dry`: the verdict is only looked at, so nothing may be changed anywhere. `call` takes what is
    /// worth telling beside the verdict.
    async fn check(&self, message: &Arc<Message>, dry: bool, call: &CallContext) -> Result<PolicyResult, Fault>;
}

/// A policy in its place.
#[derive(Clone)]
pub struct Slot {
    /// The policy.
    pub policy: Arc<dyn Policy>,
    /// What holds when it cannot be asked.
    pub on_error: OnError,
    /// Its verdicts are recorded and compared, never obeyed, and it changes nothing.
    pub shadow: Option<Shadow>,
}

/// What a policy in shadow is compared with.
#[derive(Clone, Default)]
pub struct Shadow {
    /// A policy's name; `None`: what all policies that count decided.
    pub of: Option<String>,
    /// Where the comparison is kept.
    pub log: Arc<ShadowLog>,
}

impl Slot {
    /// A policy whose verdicts count.
    pub fn enforced(policy: Arc<dyn Policy>, on_error: OnError) -> Self {
        Slot { policy, on_error, shadow: None }
    }
}

/// A policy that is a component.
pub struct WasmPolicy(pub Arc<Runtime>);

#[async_trait]
impl Policy for WasmPolicy {
    fn name(&self) -> &str {
        &self.0.settings.name
    }

    fn revision(&self) -> &str {
        &self.0.settings.revision
    }

    async fn check(&self, message: &Arc<Message>, dry: bool, call: &CallContext) -> Result<PolicyResult, Fault> {
        self.0.check(message, dry).await.report_to(call)
    }
}

/// A policy that should be asked and cannot be: it breaks every time.
pub struct BrokenPolicy {
    /// Its name.
    pub name: String,
    /// Why it cannot be asked.
    pub reason: String,
}

#[async_trait]
impl Policy for BrokenPolicy {
    fn name(&self) -> &str {
        &self.name
    }

    async fn check(&self, _: &Arc<Message>, _: bool, _: &CallContext) -> Result<PolicyResult, Fault> {
        let (plugin, message) = (self.name.clone(), self.reason.clone());
        Err(Fault { plugin, kind: FaultKind::Unavailable, message, backtrace: None })
    }
}

/// edx-ace's test_utils.StubPolicy: denies what it is told to.
pub struct StubPolicy {
    /// Its name.
    pub name: String,
    /// What it answers.
    pub result: PolicyResult,
}

#[async_trait]
impl Policy for StubPolicy {
    fn name(&self) -> &str {
        &self.name
    }

    async fn check(&self, _: &Arc<Message>, _: bool, _: &CallContext) -> Result<PolicyResult, Fault> {
        Ok(self.result.clone())
    }
}

/// What is left of a channel type after all policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    /// Nothing speaks against it.
    Allowed,
    /// Some policy denies it.
    Denied(Vec<Reason>),
    /// Asked again then.
    Delayed {
        /// When the policies are asked again.
        not_before: Timestamp,
        /// The policies that delay it.
        reasons: Vec<Reason>,
    },
    /// A policy broke, and it must be asked before anything is sent.
    Held {
        /// Why it could not be asked.
        error: String,
    },
}

/// The verdicts on one message, folded.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// For each type that was asked about, in that order.
    pub rulings: Vec<(ChannelType, Ruling)>,
    /// What each policy said.
    pub reports: Vec<PolicyReport>,
}

/// Asks every policy in order, also when nothing is left to take away: each may count or record what it sees.
pub async fn channels_for(
    policies: &[Slot],
    types: &[ChannelType],
    message: &Arc<Message>,
    now: Timestamp,
    dry: bool,
) -> Decision {
    let mut reports = Vec::with_capacity(policies.len());
    for slot in policies {
        reports.push(ask(slot, message, dry).await);
    }
    compare(policies, types, &mut reports, now);
    let rulings: Vec<_> = types.iter().map(|t| (t.clone(), ruling(t, &reports, now))).collect();
    if !dry {
        for (slot, report) in policies.iter().zip(&reports) {
            if let Some(shadow) = &slot.shadow {
                shadow.log.note(message, report, &rulings, now);
            }
        }
    }
    Decision { rulings, reports }
}

async fn ask(slot: &Slot, message: &Arc<Message>, dry: bool) -> PolicyReport {
    let (started, call) = (Instant::now(), CallContext::default());
    let span = trace::policy_span(slot.policy.name(), slot.policy.revision());
    let checking = slot.policy.check(message, dry || slot.shadow.is_some(), &call);
    let verdict = match checking.instrument(span).await {
        Ok(result) => Verdict::Result(result),
        Err(fault) => {
            let (policy, on_error) = (slot.policy.name(), slot.on_error);
            let text = format!("The policy broke (on-error: {on_error:?}): {fault}");
            digest::failed(&Failure { source: policy, kind: "policy", message: Some(message.uuid), text: &text });
            Verdict::Broken { fault, on_error }
        }
    };
    PolicyReport {
        policy: slot.policy.name().to_owned(),
        revision: slot.policy.revision().to_owned(),
        verdict,
        took_us: started.elapsed().as_micros() as u64,
        shadow: slot.shadow.as_ref().map(|_| Agreement::Agrees),
        refused: call.into_refused(),
    }
}

/// Says of each policy in shadow whether it would have made a difference.
fn compare(policies: &[Slot], types: &[ChannelType], reports: &mut [PolicyReport], now: Timestamp) {
    for (i, slot) in policies.iter().enumerate() {
        let Some(shadow) = &slot.shadow else { continue };
        let agreement = match &reports[i].verdict {
            Verdict::Broken { .. } => Agreement::Broken,
            Verdict::Result(own) => {
                let alone = [PolicyReport { shadow: None, ..reports[i].clone() }];
                let same = match &shadow.of {
                    Some(other) => reports.iter().any(|r| {
                        r.policy == *other
                            && matches!(&r.verdict, Verdict::Result(theirs)
                        if theirs.has_same_effect(own))
                    }),
                    None => types.iter().all(|t| kind(&ruling(t, reports, now)) == kind(&ruling(t, &alone, now))),
                };
                if same { Agreement::Agrees } else { Agreement::Differs }
            }
        };
        reports[i].shadow = Some(agreement);
    }
}

fn kind(ruling: &Ruling) -> std::mem::Discriminant<Ruling> {
    std::mem::discriminant(ruling)
}

/// Folds the verdicts for one channel type. A denial outweighs everything; then a broken policy that must be asked; then
/// the latest delay.
pub fn ruling(channel_type: &str, reports: &[PolicyReport], now: Timestamp) -> Ruling {
    let concerns = |named: &str| named == EVERY_TYPE || named == channel_type;
    let mut denied = Vec::new();
    let mut held = None;
    let mut delays: BTreeMap<Timestamp, Vec<Reason>> = BTreeMap::new();
    for report in reports.iter().filter(|r| r.shadow.is_none()) {
        let because = |reason: Option<String>| Reason { policy: report.policy.clone(), reason };
        match &report.verdict {
            Verdict::Broken { on_error: OnError::Allow, .. } => {}
            Verdict::Broken { on_error: OnError::Deny, fault } => {
                denied.push(because(Some(format!("broken: {}", fault.message))))
            }
            Verdict::Broken { on_error: OnError::Retry, fault } => held = held.or_else(|| Some(fault.to_string())),
            Verdict::Result(result) => {
                let denials = result.deny.iter().filter(|d| concerns(&d.channel_type));
                denied.extend(denials.map(|d| because(d.reason.clone())));
                for delay in result.delay.iter().filter(|d| concerns(&d.channel_type) && d.not_before > now) {
                    delays.entry(delay.not_before).or_default().push(because(delay.reason.clone()));
                }
            }
        }
    }
    if !denied.is_empty() {
        return Ruling::Denied(denied);
    }
    if let Some(error) = held {
        return Ruling::Held { error };
    }
    match delays.pop_last() {
        Some((not_before, reasons)) => Ruling::Delayed { not_before, reasons },
        None => Ruling::Allowed,
    }
}

#[cfg(test)]
mod tests;
