//! The tools for plugin authors behind `ace plugin`. They work on files and on one plugin at a time, in the same runtime as the server.
//!
//! - [`project`]: creates a project from the templates; [`build`]: builds its component
//! - [`case`]: test cases: a message, the state around it, and the expected answer
//! - [`run`]: runs a case with a plugin; [`test`]: runs the cases beside a plugin
//! - [`bench`]: measures calls
//! - [`dev`]: builds, runs and installs a plugin when its sources change
//! - [`diff`]: differences, for people
//! - [`ship`]: signing, and the plugin folder
//!
//! The server uses none of it.

pub mod bench;
pub mod build;
pub mod case;
pub mod dev;
pub mod diff;
pub mod project;
pub mod run;
pub mod ship;
pub mod test;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use ace::config::{self, Config, Manifest, Problems, Requests, Secret};
use ace::internals::credentials::{Credentials, Surroundings};
use ace::internals::mailer::{Mailer, MailerError};
use ace::internals::plugin::inspection::Inspection;
use ace::internals::plugin::registry::RegistryError;
use ace::internals::plugin::{Services, StandaloneHost, World, http, world};
use ace::internals::tasks::{self, Panicked};
use ace_store::keyvalue::{self, Keyvalue};

/// Why a tool for plugin authors failed.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    #[error("{}: {source}", file.display())]
    File { file: PathBuf, source: std::io::Error },
    #[error("{location}: {message}")]
    Case { location: String, message: String },
    #[error("{}: {message}", file.display())]
    Plugin { file: PathBuf, message: String },
    #[error(transparent)]
    Manifest(#[from] Problems),
    #[error(transparent)]
    Runtime(#[from] RegistryError),
    #[error(transparent)]
    Mailer(#[from] MailerError),
    #[error(transparent)]
    Keyvalue(#[from] keyvalue::FileError),
    #[error(transparent)]
    Http(#[from] http::ClientError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// Reads a component and its manifest without running any of it.
pub async fn inspect(config: &Config, file: &Path) -> Result<Inspection, KitError> {
    let host = StandaloneHost::new(config, services(config, Arc::new(world::RealWorld)).await?, false)?;
    Ok(host.inspect(config, file).await)
}

/// The services for a single plugin: the operator's relays and HTTP client, and key-value entries in memory.
async fn services(config: &Config, world: Arc<dyn World>) -> Result<Arc<Services>, KitError> {
    let config = config.clone();
    let built = tasks::blocking(move || {
        let keyvalue =
            Keyvalue::load(&config::Keyvalue { database: None, ..config.fixed.keyvalue }.store(), Timestamp::now())?;
        let keyvalue = Arc::new(keyvalue);
        let surroundings = Surroundings { now: Timestamp::now, store: keyvalue.clone() };
        let credentials = Credentials::new(&config.credentials, &config.fixed.http, surroundings);
        let credentials = Arc::new(ArcSwap::from_pointee(credentials));
        let mailer = Arc::new(Mailer::with_credentials(&config.fixed.mailer, credentials.clone())?);
        let http = Arc::new(http::Client::new(&config.fixed.http)?.within(world.clone()));
        let public_url = config.fixed.server.public_url;
        Ok::<_, KitError>(Services {
            mailer,
            keyvalue,
            http,
            credentials,
            destinations: None,
            now: Timestamp::now,
            public_url,
            world,
        })
    });
    Ok(Arc::new(built.await??))
}

/// The settings of a plugin that ace.toml does not name: it is granted what its manifest requests, so that it can be run. Files go
/// to `outbox`.
pub fn as_requested(requests: &Requests, outbox: &Path) -> config::Plugin {
    let grants = config::Grants {
        http: requests.http.clone(),
        keyvalue: requests.keyvalue.clone(),
        mailer: requests.mailer,
        feedback: requests.feedback.clone(),
        outbox: requests.outbox.then(|| outbox.to_owned()),
        ..config::Grants::default()
    };
    let secrets = requests.secrets.iter().map(|name| (name.clone(), Secret::new(format!("test-{name}"))));
    let credentials = requests.credentials.iter().map(|own| (own.clone(), own.clone())).collect();
    config::Plugin { grants, credentials, secrets: secrets.collect(), ..config::Plugin::default() }
}

/// The manifest beside a component; an empty one if there is none.
fn manifest(component: &Path) -> Result<Manifest, KitError> {
    Ok(Manifest::read(&manifest_text(component)?, Some(&component.with_extension("toml")))?)
}

fn manifest_text(component: &Path) -> Result<String, KitError> {
    let file = component.with_extension("toml");
    match std::fs::read_to_string(&file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|source| KitError::File { file, source }),
    }
}
