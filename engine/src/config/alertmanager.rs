//! The `alertmanager` section: where alerts go.

use std::time::Duration;

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::check::{Reader, not_empty, positive_ns};
use super::said::AlertmanagerSaid;
use crate::alerts::client::Endpoint;

/// The Alertmanagers of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alertmanagers {
    /// Each is told everything, as those of a cluster ask for.
    pub endpoints: Vec<Endpoint>,
    /// How often what fires is sent again.
    pub resend: Duration,
    /// The link that alerts bear, with `{rule}` for the rule's name.
    pub generator_url: Option<String>,
}

/// As often as Prometheus does.
const RESEND: Duration = Duration::from_secs(60);

/// The longest time for which an Alertmanager that was restarted may know of nothing.
const RESEND_NS_MAX: i64 = 3_600_000_000_000;

/// A port must be said: 80 is nobody's Alertmanager, and a typing error should not become one.
const EXAMPLE: &str = "http://alertmanager:9093";

impl Reader<'_> {
    pub(super) fn alertmanager(&mut self, said: &AlertmanagerSaid) -> Option<Alertmanagers> {
        let authorization = self.authorization(said);
        let mut endpoints = Vec::new();
        for url in said.urls.iter().flatten() {
            // A value with a password in it must not be repeated.
            if url.value.contains('@') {
                let message =
                    "alertmanager.urls: credentials do not belong into a URL: write `username` and `password`";
                self.fault(Some(url.referenced), message.to_owned());
                continue;
            }
            let endpoint = self.read("alertmanager.urls", url, endpoint);
            endpoints.extend(endpoint.map(|endpoint| Endpoint { authorization: authorization.clone(), ..endpoint }));
        }
        if said.urls.as_ref().is_none_or(Vec::is_empty) {
            self.fault(
                None,
                format!("alertmanager: has no `urls`: write at least alertmanager: {{urls: [\"{EXAMPLE}\"]}}"),
            );
        }
        let resend = said.resend.as_ref().and_then(|s| self.read("alertmanager.resend", s, positive_ns(RESEND_NS_MAX)));
        let generator_url = said.generator_url.as_ref();
        let generator_url = generator_url.and_then(|said| self.read("alertmanager.generator_url", said, not_empty));
        let resend = resend.map_or(RESEND, |ns| Duration::from_nanos(ns.unsigned_abs()));
        Some(Alertmanagers { endpoints, resend, generator_url })
    }

    /// The `Authorization` header of HTTP basic authentication (RFC 7617), if credentials are said.
    fn authorization(&mut self, said: &AlertmanagerSaid) -> Option<String> {
        match (&said.username, &said.password) {
            (None, None) => None,
            (Some(username), Some(password)) => {
                let username = self.read("alertmanager.username", username, not_empty)?;
                let password = self.read("alertmanager.password", password, |text| Ok(text.to_owned()))?;
                let encoded = STANDARD.encode(format!("{username}:{password}"));
                let authorization = format!("Basic {encoded}");
                self.hide(vec![authorization.clone(), encoded]);
                Some(authorization)
            }
            (username, password) => {
                let at = username.as_ref().or(password.as_ref()).map(|said| said.referenced);
                self.fault(at, "alertmanager: `username` and `password` go together".to_owned());
                None
            }
        }
    }
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    let not_a_url = || format!("is not a URL such as {EXAMPLE}");
    let uri: Uri = text.parse().map_err(|_| not_a_url())?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err("is https, which lictor does not speak: name a proxy that does".to_owned());
        }
        _ => return Err(not_a_url()),
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(not_a_url)?;
    let port = uri.port_u16().ok_or_else(|| format!("has no port: write it as in {EXAMPLE}"))?;
    if uri.query().is_some() {
        return Err("has a query: write it up to the path, without /api/v2/alerts".to_owned());
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let prefix = uri.path().trim_end_matches('/').to_owned();
    Ok(Endpoint { host, port, prefix, authorization: None })
}
