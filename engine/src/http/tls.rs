//! TLS of the HTTP servers, and who has shown a certificate.
//!
//! With a `client_ca` clients are asked for a certificate of it. A wrong one ends the handshake; none does not, because
//! probes and Prometheus have none: what needs one looks for [`Certified`] and turns others away.
//!
//! Files are read again every minute, as certificates are renewed beside running programs. Ones that cannot be used are
//! logged, and those before stay.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslAcceptor, SslAcceptorBuilder, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// Certificates are renewed days before they end.
pub(super) const READ_EVERY: Duration = Duration::from_secs(60);

/// Where a server's certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the certificate, then those that it was signed by.
    pub cert: PathBuf,
    /// PEM: its key, which is not encrypted.
    pub key: PathBuf,
    /// PEM: who signs the certificates of clients, if they need one.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{key}`: {}: {source}", path.display())]
    Unreadable {
        /// What names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("`{key}`: {}: {why}", path.display())]
    Malformed {
        /// What names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// OpenSSL does not want to.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] ErrorStack),
}

/// What is said to whoever has shown no certificate and needs one.
pub(crate) const NO_CERTIFICATE: &str = "show a certificate that `tls.client_ca` has signed";

/// Whoever asks has shown a certificate that `client_ca` has signed.
#[derive(Clone, Copy, Debug)]
pub struct Certified;

/// The files' contents.
#[derive(PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Makes TLS of connections.
pub struct Tls {
    files: TlsFiles,
    contents: Contents,
    acceptor: SslAcceptor,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be read, is no PEM of what it should be, or the key is not that of the certificate.
    pub fn try_new(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = files.read()?;
        let acceptor = files.acceptor(&contents)?;
        Ok(Self { files, contents, acceptor })
    }

    /// Takes over files that have changed.
    pub(super) fn read_again(&mut self) {
        match self.files.read() {
            Ok(contents) if contents == self.contents => {}
            read => match read.and_then(|contents| Ok((self.files.acceptor(&contents)?, contents))) {
                Ok((acceptor, contents)) => {
                    (self.acceptor, self.contents) = (acceptor, contents);
                    tracing::info!(cert = %self.files.cert.display(), "other certificates are in use");
                }
                Err(error) => tracing::error!(%error, "certificates cannot be used: those before stay"),
            },
        }
    }

    /// What the next connection is accepted by.
    pub(super) fn acceptor(&self) -> SslAcceptor {
        self.acceptor.clone()
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Contents, TlsError> {
        let read = |key, path: &Path| {
            fs::read(path).map_err(|source| TlsError::Unreadable { key, path: path.to_path_buf(), source })
        };
        Ok(Contents {
            cert: read("tls.cert", &self.cert)?,
            key: read("tls.key", &self.key)?,
            client_ca: self.client_ca.as_deref().map(|path| read("tls.client_ca", path)).transpose()?,
        })
    }

    fn acceptor(&self, contents: &Contents) -> Result<SslAcceptor, TlsError> {
        // TLS 1.2 and 1.3, with the ciphers that Mozilla recommends.
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        let mut chain = certificates("tls.cert", &self.cert, &contents.cert)?.into_iter();
        chain.next().iter().try_for_each(|cert| builder.set_certificate(cert))?;
        chain.try_for_each(|cert| builder.add_extra_chain_cert(cert))?;
        let key = self.private_key(&contents.key)?;
        builder.set_private_key(&key).and_then(|()| builder.check_private_key()).map_err(|_| TlsError::Malformed {
            key: "tls.key",
            path: self.key.clone(),
            why: format!("is not the key of {}", self.cert.display()),
        })?;
        if let (Some(path), Some(ca)) = (&self.client_ca, &contents.client_ca) {
            ask_for_certificates(&mut builder, certificates("tls.client_ca", path, ca)?)?;
        }
        Ok(builder.build())
    }

    fn private_key(&self, pem: &[u8]) -> Result<PKey<Private>, TlsError> {
        // Without a callback OpenSSL would ask at the terminal.
        PKey::private_key_from_pem_callback(pem, |_| Ok(0)).map_err(|_| TlsError::Malformed {
            key: "tls.key",
            path: self.key.clone(),
            why: "is no private key in PEM, or an encrypted one".to_owned(),
        })
    }
}

/// The certificates of a PEM file, one at least.
fn certificates(key: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<X509>, TlsError> {
    match X509::stack_from_pem(pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => {
            Err(TlsError::Malformed { key, path: path.to_path_buf(), why: "has no certificate in PEM".to_owned() })
        }
    }
}

fn ask_for_certificates(builder: &mut SslAcceptorBuilder, signers: Vec<X509>) -> Result<(), ErrorStack> {
    signers.iter().try_for_each(|signer| builder.add_client_ca(signer))?;
    builder.set_verify_cert_store(store_of(signers)?)?;
    builder.set_verify(SslVerifyMode::PEER);
    // Without a name sessions of clients with certificates cannot be resumed.
    builder.set_session_id_context(b"lictor")
}

fn store_of(signers: Vec<X509>) -> Result<X509Store, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    signers.into_iter().try_for_each(|signer| store.add_cert(signer))?;
    Ok(store.build())
}

/// Shakes hands; whether the client has shown a certificate, which is then a right one.
///
/// # Errors
/// The client speaks no TLS, or has shown a wrong certificate.
pub(super) async fn accept(
    acceptor: &SslAcceptor,
    connection: TcpStream,
) -> Result<(SslStream<TcpStream>, bool), openssl::ssl::Error> {
    let mut stream = SslStream::new(Ssl::new(acceptor.context())?, connection)?;
    Pin::new(&mut stream).accept().await?;
    let is_certified = stream.ssl().peer_certificate().is_some();
    Ok((stream, is_certified))
}

#[cfg(test)]
pub(crate) mod tests;
