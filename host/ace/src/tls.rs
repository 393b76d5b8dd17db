//! TLS: what the host trusts where it connects, and what it shows where it is connected to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Why a connection by TLS cannot be made ready.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum TlsError {
    #[error("ca-file {}: {reason}", file.display())]
    CaFile { file: PathBuf, reason: String },
    #[error("TLS: {0}")]
    Settings(#[from] rustls::Error),
}

/// The certificates of a PEM file, one at least. Touches files: not for an async thread.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let problem = |reason: String| TlsError::CaFile { file: file.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|e| problem(e.to_string()))?;
    if certificates.is_empty() {
        return Err(problem("there is no certificate in it; PEM is expected".to_owned()));
    }
    Ok(certificates)
}

/// The settings of a server with this certificate, its chain and its key, all PEM. Touches files: not for an async thread.
pub fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let chain = certificates(certificate)?;
    let problem = |e: rustls::pki_types::pem::Error| TlsError::CaFile { file: key.to_owned(), reason: e.to_string() };
    let key = PrivateKeyDer::from_pem_file(key).map_err(problem)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The settings of a client that trusts the system's roots and those of the file. Touches files: not for an async thread.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    // Certificates of the system that rustls cannot read are of no use to it; the others are.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca_file {
        for certificate in certificates(file)? {
            let problem = |e: rustls::Error| TlsError::CaFile { file: file.to_owned(), reason: e.to_string() };
            roots.add(certificate).map_err(problem)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
