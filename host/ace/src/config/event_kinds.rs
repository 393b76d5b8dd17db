//! The kinds of events: what the server tells, and what a webhook may be limited to.

/// At least one channel delivered the message.
pub const SENT: &str = "message.sent";
/// Nobody got it although someone should have.
pub const FAILED: &str = "message.failed";
/// Nobody got it, as policies or the lack of an address would have it.
pub const NOT_SENT: &str = "message.not_sent";
/// A relay or an HTTP origin went down: messages wait for it.
pub const DOWN: &str = "destination.down";
/// It can be used again.
pub const UP: &str = "destination.up";
/// A plugin serves, in a new revision or for the first time.
pub const PLUGIN_ACTIVE: &str = "plugin.active";
/// Files of a plugin were refused, and an earlier revision goes on.
pub const PLUGIN_REJECTED: &str = "plugin.rejected";
/// A plugin should serve and cannot.
pub const PLUGIN_BROKEN: &str = "plugin.broken";
/// A plugin does not serve any more, as the operator wants it.
pub const PLUGIN_REMOVED: &str = "plugin.removed";
/// A reload changed nothing because something is wrong, with ace.toml or a name in it.
pub const RELOAD_REFUSED: &str = "reload.refused";
/// Every kind of event.
pub const ALL: [&str; 10] =
    [SENT, FAILED, NOT_SENT, DOWN, UP, PLUGIN_ACTIVE, PLUGIN_REJECTED, PLUGIN_BROKEN, PLUGIN_REMOVED, RELOAD_REFUSED];
