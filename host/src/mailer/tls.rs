//! What an SMTP relay trusts: the system's roots and the ones of its CA file.

use std::path::Path;
use std::sync::Arc;

use lettre::transport::smtp::client::{Certificate, TlsParameters};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::session::Security;
use crate::config::{Smtp, Tls};

/// Reads the certificates and makes ready for the relay's kind of TLS. The error names what is wrong.
pub(super) fn security(settings: &Smtp) -> Result<Security, String> {
    let extra_roots = match &settings.ca_file {
        Some(file) => read_certificates(file)?,
        None => Vec::new(),
    };
    match settings.tls {
        Tls::None => Ok(Security::Plain),
        Tls::Starttls => starttls(&settings.host, extra_roots).map(Security::Starttls),
        Tls::Implicit => {
            let name = ServerName::try_from(settings.host.clone())
                .map_err(|_| format!("host {:?} is neither a DNS name nor an IP address", settings.host))?;
            Ok(Security::Implicit(connector(extra_roots)?, name))
        }
    }
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let problem = |e: &dyn std::fmt::Display| format!("ca_file {}: {e}", file.display());
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|e| problem(&e))?;
    if certificates.is_empty() {
        return Err(problem(&"no certificate in it; PEM is expected"));
    }
    Ok(certificates)
}

/// lettre upgrades the connection itself, with settings of its own type.
fn starttls(host: &str, extra_roots: Vec<CertificateDer<'static>>) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(host.to_owned());
    for root in extra_roots {
        let root = Certificate::from_der(root.to_vec()).map_err(|e| format!("ca_file: {e}"))?;
        builder = builder.add_root_certificate(root);
    }
    builder.build_rustls().map_err(|e| format!("TLS: {e}"))
}

fn connector(extra_roots: Vec<CertificateDer<'static>>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    // Certificates of the system that rustls cannot read are of no use to it; the others are.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for root in extra_roots {
        roots.add(root).map_err(|e| format!("ca_file: {e}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS: {e}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
