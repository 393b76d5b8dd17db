//! The kinds of TLS of an SMTP relay, made ready.

use std::path::Path;
use std::sync::Arc;

use lettre::transport::smtp::client::{Certificate, TlsParameters};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::session::Security;
use crate::config::{Smtp, Tls};
use crate::tls;

/// Reads the certificates and makes ready for the relay's kind of TLS. The error names what is wrong.
pub(super) fn security(settings: &Smtp) -> Result<Security, String> {
    let ca_file = settings.ca_file.as_deref();
    match settings.tls {
        Tls::None => {
            // One that cannot be read is told, though nothing rests on it yet.
            ca_file.map(tls::certificates).transpose().map_err(|e| e.to_string())?;
            Ok(Security::Plain)
        }
        Tls::Starttls => starttls(&settings.host, ca_file).map(Security::Starttls),
        Tls::Implicit => {
            let name = ServerName::try_from(settings.host.clone())
                .map_err(|_| format!("host {:?} is neither a DNS name nor an IP address", settings.host))?;
            let config = tls::client_config(ca_file).map_err(|e| e.to_string())?;
            Ok(Security::Implicit(TlsConnector::from(Arc::new(config)), name))
        }
    }
}

/// lettre upgrades the connection itself, with settings of its own type.
fn starttls(host: &str, ca_file: Option<&Path>) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(host.to_owned());
    for root in ca_file.map(tls::certificates).transpose().map_err(|e| e.to_string())?.unwrap_or_default() {
        let root = Certificate::from_der(root.to_vec()).map_err(|e| format!("ca-file: {e}"))?;
        builder = builder.add_root_certificate(root);
    }
    builder.build_rustls().map_err(|e| format!("TLS: {e}"))
}
