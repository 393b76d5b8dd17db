//! The TLS configuration of SMTP relays.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::session::Security;
use crate::config::{Smtp, Tls};
use crate::tls;

/// Reads the certificates and prepares the relay's kind of TLS.
pub(super) fn security(settings: &Smtp) -> Result<Security, String> {
    let ca_file = settings.ca_file.as_deref();
    let kind = match settings.tls {
        Tls::None => {
            // Reports a file that cannot be read, although it is not used.
            ca_file.map(tls::certificates).transpose().map_err(|e| e.to_string())?;
            return Ok(Security::Plain);
        }
        Tls::Starttls => Security::Starttls,
        Tls::Implicit => Security::Implicit,
    };
    let name = ServerName::try_from(settings.host.clone())
        .map_err(|_| format!("host {:?} is neither a DNS name nor an IP address", settings.host))?;
    let config = tls::client_config(ca_file).map_err(|e| e.to_string())?;
    Ok(kind(TlsConnector::from(Arc::new(config)), name))
}
