//! The kinds of events that the server emits. A webhook may be restricted to some of them.

/// At least one channel delivered the message.
pub const SENT: &str = "message.sent";
/// No channel delivered the message, although one should have.
pub const FAILED: &str = "message.failed";
/// No channel delivered the message, because of policies or a missing address.
pub const NOT_SENT: &str = "message.not_sent";
/// A provider reported an event about a message or an address.
pub const FEEDBACK: &str = "message.feedback";
/// An address of a recipient does not exist any more, and the application should delete it.
pub const CONTACT_DROPPED: &str = "contact.dropped";
/// A relay or HTTP origin went down, or a channel is held; messages wait for it.
pub const DOWN: &str = "destination.down";
/// A relay, HTTP origin or channel can be used again.
pub const UP: &str = "destination.up";
/// A plugin is active for the first time, or with a new revision.
pub const PLUGIN_ACTIVE: &str = "plugin.active";
/// The files of a plugin were rejected, and an earlier revision stays active.
pub const PLUGIN_REJECTED: &str = "plugin.rejected";
/// A plugin should be active and cannot.
pub const PLUGIN_BROKEN: &str = "plugin.broken";
/// A plugin is no longer active, because of the configuration or because its file was removed.
pub const PLUGIN_REMOVED: &str = "plugin.removed";
/// A reload was rejected because of problems in ace.toml, and changed nothing.
pub const RELOAD_REFUSED: &str = "reload.refused";
/// Every kind of event.
pub const ALL: [&str; 12] = [
    SENT,
    FAILED,
    NOT_SENT,
    FEEDBACK,
    CONTACT_DROPPED,
    DOWN,
    UP,
    PLUGIN_ACTIVE,
    PLUGIN_REJECTED,
    PLUGIN_BROKEN,
    PLUGIN_REMOVED,
    RELOAD_REFUSED,
];
