//! The names of environment variables, and the settings that replace those of edx-ace.

pub(super) const PREFIX: &str = "ACE_";

/// Separates the levels of a key.
pub(super) const LEVEL: &str = "__";

/// edx-ace's settings that have another name here, and their replacements.
const EDX_ACE: [(&str, &str); 14] = [
    ("ACE_CHANNEL_DEFAULT_EMAIL", "routing.default.email (ACE_ROUTING__DEFAULT__EMAIL)"),
    ("ACE_CHANNEL_TRANSACTIONAL_EMAIL", "routing.transactional.email (ACE_ROUTING__TRANSACTIONAL__EMAIL)"),
    ("ACE_CHANNEL_DEFAULT_PUSH", "routing.default.push (ACE_ROUTING__DEFAULT__PUSH)"),
    ("ACE_PUSH_CHANNELS", "routing.listed.push (ACE_ROUTING__LISTED__PUSH)"),
    ("ACE_DEFAULT_EXPIRATION_DELAY", "delivery.expiration-delay (ACE_DELIVERY__EXPIRATION_DELAY), as in \"120s\""),
    ("ACE_DEFAULT_API_TIMEOUT", "limits.call-timeout of the channel's section, as in \"5s\""),
    ("ACE_CHANNEL_BRAZE_API_KEY", "secrets of plugins.braze_email, as in { api-key = { env = \"BRAZE_API_KEY\" } }"),
    ("ACE_CHANNEL_BRAZE_PUSH_CAMPAIGNS", "config of the Braze push channel's section under plugins"),
    ("ACE_CHANNEL_BRAZE_APP_ID", "config of plugins.braze_email"),
    ("ACE_CHANNEL_BRAZE_REST_ENDPOINT", "config and grants.http of plugins.braze_email"),
    ("ACE_CHANNEL_BRAZE_CAMPAIGNS", "config.campaigns of plugins.braze_email"),
    ("ACE_CHANNEL_BRAZE_FROM_EMAIL", "config of plugins.braze_email"),
    ("ACE_CHANNEL_SAILTHRU_", "config and secrets of plugins.sailthru_email"),
    ("ACE_ROUTING_KEY", "not needed (there is no Celery queue); remove it"),
];

/// The replacement of edx-ace's setting of this name.
pub(super) fn edx_ace(name: &str) -> Option<String> {
    let matches = |of: &str| name == of || (of.ends_with('_') && name.starts_with(of));
    let (_, ours) = EDX_ACE.iter().find(|(of, _)| matches(of))?;
    Some(format!("is a setting of edx-ace; here it is {ours}"))
}

/// The variable of a key: `["delivery", "max-waiting"]` is `ACE_DELIVERY__MAX_WAITING`.
pub(super) fn variable_of(path: &[String]) -> String {
    let levels: Vec<String> = path.iter().map(|level| level.to_uppercase().replace('-', "_")).collect();
    format!("{PREFIX}{}", levels.join(LEVEL))
}
