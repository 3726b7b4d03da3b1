//! The `tls` section: certificates of the HTTP servers.

use std::path::Path;

use super::check::{Reader, path};
use super::said::{Said, TlsSaid};
use crate::http::tls::TlsFiles;

impl Reader<'_> {
    /// Whether the files can be used is seen when a server starts: a configuration is also checked elsewhere.
    pub(super) fn tls(&mut self, said: &TlsSaid, folder: &Path) -> Option<TlsFiles> {
        let mut file = |key: &str, said: Option<&Said>| self.read(key, said?, |text| path(folder, text));
        let (cert, key) = (file("tls.cert", said.cert.as_ref()), file("tls.key", said.key.as_ref()));
        let client_ca = file("tls.client_ca", said.client_ca.as_ref());
        if said.cert.is_none() || said.key.is_none() {
            let named = [&said.cert, &said.key, &said.client_ca].into_iter().flatten().next();
            let message = "tls: needs a `cert` and its `key`, each the name of a PEM file";
            self.fault(named.map(|said| said.referenced), message.to_owned());
        }
        // A client_ca that is said wrongly must not let everybody in; it is a fault, so nobody starts with it.
        Some(TlsFiles { cert: cert?, key: key?, client_ca })
    }
}
