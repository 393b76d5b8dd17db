//! Items for `ace-server`, `ace-cli`, the tests and the benchmarks, which embedding applications do not need.
//!
//! They are not stable: they change with their users in this workspace. Each module re-exports items of the private module of the
//! same name. A new line here is a design decision, because it exposes a module to another crate.

/// What the host adds to requests of plugins.
pub mod credentials {
    pub use crate::credentials::{Authorized, Credentials, Judgement, Key, Refusal, Request, Surroundings, TokenStore};
}

/// The state of relays and origins.
pub mod destination {
    pub use crate::destination::{Destinations, Notice, View, Wanted};
}

/// Building an engine and inspecting its configuration.
pub mod engine {
    pub use crate::engine::{Notice, Preflight, preflight, preview, texts};
}

/// Relays and mails.
pub mod mailer {
    pub use crate::mailer::{Email, Mailer, MailerError};
}

/// Metrics, log events and spans.
pub mod monitoring {
    pub use crate::monitoring::{
        Exposition, destination_waiting, digest, feedback_event, feedback_request, install, otlp, task_failed, trace,
    };
}

/// The state of one message.
pub mod pipeline {
    pub use crate::pipeline::{Limit, Progress, Snapshot};
}

/// The component runtime.
pub mod plugin {
    pub use crate::plugin::authoring::{sandbox, standalone};
    pub use crate::plugin::loading::{inspection, registry, signature};
    pub use crate::plugin::runtime::{instance, world};
    pub use crate::plugin::{
        Engine, INTERFACE_VERSION, Namespace, Plugin, PluginState, PluginView, Runtime, Sandbox, Services,
        StandaloneHost, World, grants, http,
    };
}

/// Templates.
pub mod presentation {
    pub use crate::presentation::{Presentation, Subject};
}

/// Tasks that are restarted when they fail.
pub mod tasks {
    pub use crate::tasks::{Panicked, Pauses, Tasks, blocking, caught};
}

/// Certificates and trust.
pub mod tls {
    pub use crate::tls::{Identity, TlsError, client_config, client_config_as, server_config};
}
