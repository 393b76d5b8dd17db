//! TLS: the certificates that the host trusts as a client, and its own as a server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

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

/// A client's certificate, with its chain and its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    fingerprint: [u8; 32],
}

impl Identity {
    /// The identity of a chain of certificates, its own first, and a key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        let mut hash = Sha256::new();
        for part in chain.iter().map(AsRef::as_ref).chain([key.secret_der()]) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Identity { chain, key, fingerprint: hash.finalize().into() }
    }

    /// Differs between two identities. Connections are shared only by requests with the same identity.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[a client certificate, with {} in its chain]", self.chain.len())
    }
}

/// The settings of a client that trusts the system's root certificates and those of a file. Blocks on the disk.
///
/// # Errors
/// If the file cannot be read.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    Ok(client_builder(ca_file)?.with_no_client_auth())
}

/// The same for a client that shows its certificate. Blocks on the disk.
///
/// # Errors
/// If the file cannot be read, or the identity's key does not fit.
pub fn client_config_as(ca_file: Option<&Path>, identity: &Identity) -> Result<ClientConfig, TlsError> {
    let builder = client_builder(ca_file)?;
    Ok(builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?)
}

fn client_builder(ca_file: Option<&Path>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
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
    Ok(builder.with_root_certificates(roots))
}
