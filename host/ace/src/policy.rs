//! Evaluates all policies and merges their verdicts. A policy can only deny or delay channel types.
//!
//! A policy that fails has given no verdict; its `on-error` decides what happens then.

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

/// Decides whether and when messages may be sent: a plugin, or native code of an embedding application.
#[async_trait]
pub trait Policy: Send + Sync {
    /// Its name in reports and in the configuration.
    fn name(&self) -> &str;

    /// Its revision, if it has one.
    fn revision(&self) -> &str {
        ""
    }

    /// Evaluates one message. `dry`: the verdict is only shown, so nothing may be changed. `call` collects what happened besides.
    ///
    /// # Errors
    /// The policy failed and gave no verdict.
    async fn check(&self, message: &Arc<Message>, dry: bool, call: &CallContext) -> Result<PolicyResult, Fault>;
}

/// A policy and its settings.
#[derive(Clone)]
pub struct PolicyEntry {
    /// The policy.
    pub policy: Arc<dyn Policy>,
    /// What happens if it fails.
    pub on_error: OnError,
    /// Shadow mode: its verdicts are recorded and compared, but not applied, and it changes nothing.
    pub shadow: Option<Shadow>,
}

/// What a policy in shadow mode is compared with.
#[derive(Clone, Default)]
pub struct Shadow {
    /// The name of another policy; `None`: the decision of all enforced policies.
    pub of: Option<String>,
    /// The results of the comparison.
    pub log: Arc<ShadowLog>,
}

impl PolicyEntry {
    /// A policy whose verdicts are applied.
    pub fn enforced(policy: Arc<dyn Policy>, on_error: OnError) -> Self {
        PolicyEntry { policy, on_error, shadow: None }
    }
}

/// A policy in a plugin.
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

/// A policy that cannot be loaded: every evaluation fails.
pub struct BrokenPolicy {
    /// Its name.
    pub name: String,
    /// Why it cannot be loaded.
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

/// A policy with a fixed verdict, like edx-ace's `test_utils.StubPolicy`.
pub struct StubPolicy {
    /// Its name.
    pub name: String,
    /// Its verdict.
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

/// The decision of all policies about a channel type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ruling {
    /// No policy denies or delays it.
    Allowed,
    /// At least one policy denies it, for these reasons.
    Denied(Vec<Reason>),
    /// At least one policy delays it.
    Delayed {
        /// When the policies are evaluated again.
        not_before: Timestamp,
        /// The reasons for the latest delay.
        reasons: Vec<Reason>,
    },
    /// A policy failed that must be evaluated before anything is sent.
    Held {
        /// The error of that policy.
        error: String,
    },
}

/// The merged verdicts on one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The ruling for each requested channel type, in that order.
    pub rulings: Vec<(ChannelType, Ruling)>,
    /// What each policy answered.
    pub reports: Vec<PolicyReport>,
}

/// Evaluates every policy in order, even if all types are already denied, because policies may count messages.
pub async fn channels_for(
    policies: &[PolicyEntry],
    types: &[ChannelType],
    message: &Arc<Message>,
    now: Timestamp,
    dry: bool,
) -> Decision {
    let mut reports = Vec::with_capacity(policies.len());
    for entry in policies {
        reports.push(evaluate(entry, message, dry).await);
    }
    compare(policies, types, &mut reports, now);
    let rulings: Vec<_> = types.iter().map(|t| (t.clone(), ruling(t, &reports, now))).collect();
    if !dry {
        for (entry, report) in policies.iter().zip(&reports) {
            if let Some(shadow) = &entry.shadow {
                shadow.log.record(message, report, &rulings, now);
            }
        }
    }
    Decision { rulings, reports }
}

async fn evaluate(entry: &PolicyEntry, message: &Arc<Message>, dry: bool) -> PolicyReport {
    let (started, call) = (Instant::now(), CallContext::default());
    let span = trace::policy_span(entry.policy.name(), entry.policy.revision());
    let checking = entry.policy.check(message, dry || entry.shadow.is_some(), &call);
    let verdict = match checking.instrument(span).await {
        Ok(result) => Verdict::Result(result),
        Err(fault) => {
            let (policy, on_error) = (entry.policy.name(), entry.on_error);
            let text = format!("The policy failed (on-error: {on_error:?}): {fault}");
            digest::failed(&Failure { source: policy, kind: "policy", message: Some(message.uuid), text: &text });
            Verdict::Broken { fault, on_error }
        }
    };
    PolicyReport {
        policy: entry.policy.name().to_owned(),
        revision: entry.policy.revision().to_owned(),
        verdict,
        took_us: started.elapsed().as_micros() as u64,
        shadow: entry.shadow.as_ref().map(|_| Agreement::Agrees),
        refused: call.into_refused(),
    }
}

/// Records for each policy in shadow mode whether it would have made a difference.
fn compare(policies: &[PolicyEntry], types: &[ChannelType], reports: &mut [PolicyReport], now: Timestamp) {
    for (i, entry) in policies.iter().enumerate() {
        let Some(shadow) = &entry.shadow else { continue };
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

/// Merges the verdicts on one channel type. A denial comes first, then a failed policy that must be evaluated, then the latest
/// delay.
pub fn ruling(channel_type: &str, reports: &[PolicyReport], now: Timestamp) -> Ruling {
    let applies = |named: &str| named == EVERY_TYPE || named == channel_type;
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
                let denials = result.deny.iter().filter(|d| applies(&d.channel_type));
                denied.extend(denials.map(|d| because(d.reason.clone())));
                for delay in result.delay.iter().filter(|d| applies(&d.channel_type) && d.not_before > now) {
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
