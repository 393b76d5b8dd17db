//! TLS: the certificates that the host trusts as a client, and its own as a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Why TLS cannot be configured.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages describe them")]
#[non_exhaustive]
pub enum TlsError {
    #[error("ca-file {}: {reason}", file.display())]
    CaFile { file: PathBuf, reason: String },
    #[error("TLS: {0}")]
    Settings(#[from] rustls::Error),
}

/// The certificates of a PEM file, at least one. Blocks on the disk.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let problem = |reason: String| TlsError::CaFile { file: file.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|e| problem(e.to_string()))?;
    if certificates.is_empty() {
        return Err(problem("it has no certificate; expected PEM".to_owned()));
    }
    Ok(certificates)
}

/// The settings of a server with a certificate, its chain and its key in PEM. Blocks on the disk.
///
/// # Errors
/// If a file cannot be read, or the key does not fit.
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

/// The settings of a client that trusts the system's root certificates and those of a file. Blocks on the disk.
///
/// # Errors
/// If the file cannot be read.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    // Skips certificates of the system that rustls cannot parse.
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
