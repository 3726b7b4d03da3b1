//! Certificates that are made here, and clients that have the right one, a wrong one or none.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as Client};
use std::path::PathBuf;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::{SslConnector, SslStream as BlockingStream};
use openssl::symm::Cipher;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};
use tempfile::TempDir;

use super::super::{HttpCounts, HttpError, HttpServer};
use super::*;

/// A certificate with its key.
pub(crate) struct Issued {
    pub(crate) cert: X509,
    pub(crate) key: PKey<Private>,
}

impl Issued {
    /// Signed by `signer`, or by itself: then it can sign others.
    pub(crate) fn new(name: &str, signer: Option<&Self>) -> Self {
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap();
        let mut subject = X509Name::builder().unwrap();
        subject.append_entry_by_text("CN", name).unwrap();
        let subject = subject.build();
        let mut cert = X509::builder().unwrap();
        cert.set_version(2).unwrap();
        let serial = BigNum::from_u32(fastrand::u32(1..)).unwrap().to_asn1_integer().unwrap();
        cert.set_serial_number(&serial).unwrap();
        cert.set_subject_name(&subject).unwrap();
        cert.set_issuer_name(signer.map_or(&subject, |signer| signer.cert.subject_name())).unwrap();
        cert.set_pubkey(&key).unwrap();
        cert.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        cert.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
        if signer.is_none() {
            cert.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        } else {
            let names = SubjectAlternativeName::new().ip("127.0.0.1").build(&cert.x509v3_context(None, None)).unwrap();
            cert.append_extension(names).unwrap();
        }
        cert.sign(signer.map_or(&key, |signer| &signer.key), MessageDigest::sha256()).unwrap();
        Self { cert: cert.build(), key }
    }

    /// Writes `<name>.pem` and `<name>.key` into a folder.
    pub(crate) fn write(&self, folder: &TempDir, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.path().join(format!("{name}.pem")), folder.path().join(format!("{name}.key")));
        fs::write(&cert, self.cert.to_pem().unwrap()).unwrap();
        fs::write(&key, self.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        (cert, key)
    }
}

/// A signer, a server's files, and a certificate for a client.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) signer: Issued,
    pub(crate) client: Issued,
    pub(crate) files: TlsFiles,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let signer = Issued::new("signer", None);
        let client = Issued::new("gateway", Some(&signer));
        let (ca, _) = signer.write(&folder, "ca");
        let (cert, key) = Issued::new("server", Some(&signer)).write(&folder, "server");
        Self { folder, signer, client, files: TlsFiles { cert, key, client_ca: Some(ca) } }
    }

    /// A connection of a client that knows the server by its signer, or why there is none.
    pub(crate) fn connect(
        &self,
        address: SocketAddr,
        client: Option<&Issued>,
    ) -> Result<BlockingStream<Client>, String> {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        connector.set_cert_store(store_of(vec![self.signer.cert.clone()]).unwrap());
        if let Some(Issued { cert, key }) = client {
            connector.set_certificate(cert).unwrap();
            connector.set_private_key(key).unwrap();
        }
        let connection = Client::connect(address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        connector.build().connect("127.0.0.1", connection).map_err(|error| error.to_string())
    }

    /// The answer to a request, or why there is none.
    pub(crate) fn ask(&self, address: SocketAddr, client: Option<&Issued>, path: &str) -> Result<String, String> {
        let mut connection = self.connect(address, client)?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut answer = String::new();
        // With TLS 1.3 a client learns only then that its certificate was not taken.
        match connection.read_to_string(&mut answer) {
            Ok(_) => Ok(answer),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Says who asks.
fn serve(files: &TlsFiles) -> HttpServer {
    let who = |request: Request| async move {
        if request.extensions().get::<Certified>().is_some() { "certified" } else { "anybody" }
    };
    let router = Router::new().route("/", get(who));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    HttpServer::serve_over(Some(files), (any, "test"), router, HttpCounts::default()).unwrap()
}

#[track_caller]
fn refused(files: &TlsFiles, why: &str) {
    let error = Tls::try_new(files.clone()).map(drop).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn whoever_has_the_right_certificate_is_known_and_whoever_has_none_is_anybody() {
    let site = Site::new();
    let server = serve(&site.files);
    let answer = site.ask(server.address(), Some(&site.client), "/").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("certified"), "{answer}");
    assert!(site.ask(server.address(), None, "/").unwrap().ends_with("anybody"));
}

#[test]
fn a_certificate_of_somebody_elses_ends_the_handshake() {
    let (site, stranger) = (Site::new(), Issued::new("stranger", None));
    let server = serve(&site.files);
    let forged = Issued::new("gateway", Some(&stranger));
    for wrong in [&stranger, &forged] {
        let answer = site.ask(server.address(), Some(wrong), "/");
        assert!(answer.is_err(), "{answer:?}");
    }
    assert!(site.ask(server.address(), Some(&site.client), "/").is_ok(), "others are answered");
}

#[test]
fn without_a_client_ca_nobody_is_asked_for_a_certificate() {
    let site = Site::new();
    let server = serve(&TlsFiles { client_ca: None, ..site.files.clone() });
    for client in [None, Some(&site.client)] {
        assert!(site.ask(server.address(), client, "/").unwrap().ends_with("anybody"));
    }
}

#[test]
fn plain_http_is_not_answered() {
    let server = serve(&Site::new().files);
    let mut client = Client::connect(server.address()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).ok();
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let site = Site::new();
    let TlsFiles { cert, key, .. } = site.files.clone();
    let with = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = site.files.clone();
        change(&mut files);
        files
    };
    let missing = site.folder.path().join("none.pem");
    refused(&with(&|files| files.cert.clone_from(&missing)), "`tls.cert`: /");
    refused(&with(&|files| files.key.clone_from(&missing)), "none.pem: No such file");
    refused(&with(&|files| files.client_ca = Some(missing.clone())), "`tls.client_ca`: /");
    refused(&with(&|files| files.cert.clone_from(&key)), "server.key: has no certificate in PEM");
    refused(&with(&|files| files.key.clone_from(&cert)), "server.pem: is no private key in PEM");
    refused(&with(&|files| files.client_ca = Some(key.clone())), "`tls.client_ca`: /");
    let (_, other) = site.client.write(&site.folder, "client");
    refused(&with(&|files| files.key.clone_from(&other)), "client.key: is not the key of /");
    let encrypted = site.folder.path().join("encrypted.key");
    let pem = site.client.key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"hunter2").unwrap();
    fs::write(&encrypted, pem).unwrap();
    refused(
        &with(&|files| files.key.clone_from(&encrypted)),
        "encrypted.key: is no private key in PEM, or an encrypted",
    );
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let files = with(&|files| files.cert.clone_from(&missing));
    let started = HttpServer::serve_over(Some(&files), (any, "test"), Router::new(), HttpCounts::default());
    assert!(matches!(started, Err(HttpError::Tls(_))));
}

#[test]
fn renewed_files_are_taken_over_and_broken_ones_are_not() {
    let site = Site::new();
    let mut tls = Tls::try_new(site.files.clone()).unwrap();
    let serial = |tls: &Tls| tls.acceptor.context().certificate().unwrap().serial_number().to_bn().unwrap();
    let first = serial(&tls);
    tls.read_again();
    assert_eq!(serial(&tls), first);
    Issued::new("server", Some(&site.signer)).write(&site.folder, "server");
    tls.read_again();
    let second = serial(&tls);
    assert_ne!(second, first);
    fs::write(&site.files.key, "half of a k").unwrap();
    tls.read_again();
    assert_eq!(serial(&tls), second);
    Issued::new("server", Some(&site.signer)).write(&site.folder, "server");
    tls.read_again();
    assert_ne!(serial(&tls), second);
}

#[test]
fn hands_that_are_not_shaken_keep_nobody_out() {
    let site = Site::new();
    let server = serve(&site.files);
    let silent: Vec<Client> = (0..20).map(|_| Client::connect(server.address()).unwrap()).collect();
    assert!(site.ask(server.address(), None, "/").unwrap().ends_with("anybody"));
    drop(silent);
}
