//! The `alertmanager` section: where alerts go.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::check::{Reader, not_empty, positive_ns};
use super::said::AlertmanagerSaid;
use crate::http::call::Endpoint;

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
            let endpoint = self.read("alertmanager.urls", url, |text| Endpoint::parse(text, EXAMPLE));
            let headers = authorization.iter().cloned().collect();
            endpoints.extend(endpoint.map(|endpoint| Endpoint { headers, ..endpoint }));
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
    fn authorization(&mut self, said: &AlertmanagerSaid) -> Option<(HeaderName, HeaderValue)> {
        match (&said.username, &said.password) {
            (None, None) => None,
            (Some(username), Some(password)) => {
                let username = self.read("alertmanager.username", username, not_empty)?;
                let password = self.read("alertmanager.password", password, |text| Ok(text.to_owned()))?;
                let encoded = STANDARD.encode(format!("{username}:{password}"));
                let authorization = format!("Basic {encoded}");
                let value = HeaderValue::from_str(&authorization).ok()?;
                self.hide(vec![authorization, encoded]);
                Some((header::AUTHORIZATION, value))
            }
            (username, password) => {
                let at = username.as_ref().or(password.as_ref()).map(|said| said.referenced);
                self.fault(at, "alertmanager: `username` and `password` go together".to_owned());
                None
            }
        }
    }
}
