//! TLS with a certificate that can be replaced while the server runs.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Result};

/// A certificate chain and its private key, from two PEM files.
#[derive(Debug)]
pub struct Certificate {
    chain_file: PathBuf,
    key_file: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if they cannot be read or do not match.
    pub fn open(chain_file: &Path, key_file: &Path) -> Result<Arc<Self>> {
        let current = ArcSwap::from_pointee(read(chain_file, key_file)?);
        Ok(Arc::new(Self {
            chain_file: chain_file.to_owned(),
            key_file: key_file.to_owned(),
            current,
        }))
    }

    /// Reads the files again, for connections from now on.
    pub(crate) fn reload(&self) -> Result<()> {
        let certificate = read(&self.chain_file, &self.key_file)?;
        self.current.store(Arc::new(certificate));
        Ok(())
    }

    /// Returns the paths of both files.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        vec![self.chain_file.clone(), self.key_file.clone()]
    }

    /// Returns an acceptor that presents the current certificate.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor> {
        let resolver = Arc::new(Resolver(Arc::clone(self)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal(format!("TLS: {error}")))?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

struct Resolver(Arc<Certificate>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current.load_full())
    }
}

fn read(chain_file: &Path, key_file: &Path) -> Result<CertifiedKey> {
    let wrong = |path: &Path, what: String| Error::artifact(format!("{}: {what}", path.display()));
    let chain = CertificateDer::pem_file_iter(chain_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| {
            wrong(
                chain_file,
                format!("the certificates cannot be read: {error}"),
            )
        })?;
    if chain.is_empty() {
        let what = "the file has no certificate; it must be PEM";
        return Err(wrong(chain_file, what.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| wrong(key_file, format!("the private key cannot be read: {error}")))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| {
        let chain = chain_file.display();
        wrong(key_file, format!("the key does not match {chain}: {error}"))
    })
}
