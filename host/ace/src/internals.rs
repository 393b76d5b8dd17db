//! What `ace-server`, `ace-cli`, the tests and the benchmarks use beyond what an embedding application needs.
//!
//! Nothing here is covered by a promise of stability: it changes with its users, which are in the same workspace. Each module
//! stands for the private one of the same name. A new line here is a design decision, as it opens a module to another crate.

/// Which relays and origins can be used.
pub mod destination {
    pub use crate::destination::{Destinations, Notice, View, Wanted};
}

/// Building an engine, and looking at what it was built from.
pub mod engine {
    pub use crate::engine::{Notice, Survey, preview, survey, texts};
}

/// Relays and mails.
pub mod mailer {
    pub use crate::mailer::{Email, Mailer, MailerError};
}

/// Metrics, log events and spans.
pub mod monitoring {
    pub use crate::monitoring::{Exposition, destination_waiting, digest, install, otlp, task_failed, trace};
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

/// Tasks that are started again when they fail.
pub mod tasks {
    pub use crate::tasks::{Panicked, Pauses, Tasks, blocking, caught};
}

/// Certificates, and what is trusted.
pub mod tls {
    pub use crate::tls::{TlsError, client_config, server_config};
}
