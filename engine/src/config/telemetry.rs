//! The `telemetry` section, and what the environment says where other programs look for it.
//!
//! Of the variables of OpenTelemetry's SDKs these are read, and what the file says goes before them:
//! `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_PROTOCOL`, `OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SDK_DISABLED`. They are often set for all programs of a machine, so what lictor
//! cannot do with them is noted and is no reason not to start.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};

use super::check::{Reader, not_empty, positive_ns};
use super::said::{Said, TelemetrySaid};
use crate::http::call::Endpoint;
use crate::telemetry::TelemetrySettings;

const EXAMPLE: &str = "http://collector:4318";

/// Prometheus asks about as often.
const INTERVAL: Duration = Duration::from_secs(10);

/// Less often nobody sees what happens now.
const INTERVAL_NS_MAX: i64 = 3_600_000_000_000;

/// The one way of OTLP that lictor speaks.
const PROTOCOL: &str = "http/protobuf";

type Pairs = BTreeMap<String, String>;

impl Reader<'_> {
    /// None if nobody is to be told.
    pub(super) fn telemetry(&mut self, said: Option<&TelemetrySaid>) -> Option<TelemetrySettings> {
        let nothing = TelemetrySaid::default();
        let said = said.unwrap_or(&nothing);
        let interval = said.interval.as_ref();
        let interval = interval.and_then(|said| self.read("telemetry.interval", said, positive_ns(INTERVAL_NS_MAX)));
        let interval = interval.map_or(INTERVAL, |ns| Duration::from_nanos(ns.unsigned_abs()));
        let headers = self.telemetry_headers(said.headers.as_ref());
        let resource = self.resource(said.attributes.as_ref());
        let is_disabled = self.env("OTEL_SDK_DISABLED").is_some_and(|said| said.eq_ignore_ascii_case("true"));
        let endpoint = match &said.otlp_endpoint {
            Some(said) => self.endpoint_of_file(said),
            None => self.endpoint_of_environment().filter(|_| !is_disabled),
        }?;
        let endpoint = Endpoint { headers, ..endpoint };
        Some(TelemetrySettings { endpoint, interval, resource: resource.into_iter().collect() })
    }

    fn endpoint_of_file(&mut self, said: &Said) -> Option<Endpoint> {
        // A value with a password in it must not be repeated.
        if let Err(why) = credentials_apart(&said.value) {
            self.fault(Some(said.referenced), format!("telemetry.otlp_endpoint: {why}"));
            return None;
        }
        self.read("telemetry.otlp_endpoint", said, endpoint_or_off).flatten()
    }

    /// A variable of the environment that says something.
    fn env(&self, name: &str) -> Option<String> {
        (self.outside.env)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn endpoint_of_environment(&mut self) -> Option<Endpoint> {
        const NAME: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let said = self.env(NAME)?;
        let protocol = self.env("OTEL_EXPORTER_OTLP_PROTOCOL").unwrap_or_else(|| PROTOCOL.to_owned());
        let endpoint = if protocol == PROTOCOL {
            credentials_apart(&said).and_then(|()| Endpoint::parse(&said, EXAMPLE))
        } else {
            Err(format!("is meant for `{protocol}` (OTEL_EXPORTER_OTLP_PROTOCOL), and lictor speaks {PROTOCOL}"))
        };
        let noted = endpoint.map_err(|why| {
            format!("no telemetry of lictor's own is sent: {NAME} {why}; `telemetry.otlp_endpoint` goes before it")
        });
        match noted {
            Ok(endpoint) => Some(endpoint),
            Err(note) => {
                self.notes.push(note);
                None
            }
        }
    }

    /// Headers of the environment, and those of the file, which go before them; no value is ever repeated.
    fn telemetry_headers(&mut self, said: Option<&BTreeMap<String, Said>>) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = BTreeMap::new();
        for (name, value) in self.pairs_of_environment("OTEL_EXPORTER_OTLP_HEADERS") {
            self.hide(vec![value.clone()]);
            match header(&name, &value) {
                Some((name, value)) => drop(headers.insert(name.to_string(), (name, value))),
                None => self.notes.push("OTEL_EXPORTER_OTLP_HEADERS has what is no HTTP header: left out".to_owned()),
            }
        }
        for (name, said) in said.into_iter().flatten() {
            let key = format!("telemetry.headers.{name}");
            let Some(value) = self.text(&key, said) else { continue };
            self.hide(vec![value.clone()]);
            match header(name, &value) {
                Some((name, value)) => drop(headers.insert(name.to_string(), (name, value))),
                None => self.fault(Some(said.referenced), format!("{key}: is no HTTP header")),
            }
        }
        headers.into_values().collect()
    }

    fn resource(&mut self, said: Option<&BTreeMap<String, Said>>) -> Pairs {
        let mut resource: Pairs = self.pairs_of_environment("OTEL_RESOURCE_ATTRIBUTES").into_iter().collect();
        resource.extend(self.env("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name)));
        for (name, said) in said.into_iter().flatten() {
            let value = self.read(&format!("telemetry.attributes.{name}"), said, not_empty);
            resource.extend(value.map(|value| (name.clone(), value)));
        }
        resource
    }

    /// `key=value` pairs with commas between them, values percent-encoded (W3C Baggage, as OpenTelemetry has it).
    fn pairs_of_environment(&mut self, name: &str) -> Vec<(String, String)> {
        let said = self.env(name).unwrap_or_default();
        let pairs = said.split(',').filter(|pair| !pair.trim().is_empty());
        let parsed: Vec<_> = pairs.map(|pair| pair.split_once('=')).collect();
        if parsed.contains(&None) {
            self.notes.push(format!("{name} has what is not `key=value`: left out"));
        }
        let decoded = |(key, value): (&str, &str)| Some((key.trim().to_owned(), percent_decoded(value.trim())?));
        parsed.into_iter().flatten().filter_map(decoded).collect()
    }
}

fn endpoint_or_off(text: &str) -> Result<Option<Endpoint>, String> {
    if text == "off" {
        return Ok(None);
    }
    Endpoint::parse(text, EXAMPLE).map(Some)
}

fn credentials_apart(url: &str) -> Result<(), String> {
    if url.contains('@') { Err("has credentials in its URL: write them into headers".to_owned()) } else { Ok(()) }
}

fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// None if it is no UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let (bytes, mut decoded, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (value, length) = match (byte, hex) {
            (b'%', Some(value)) => (value, 3),
            _ => (*byte, 1),
        };
        decoded.push(value);
        at += length;
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, ConfigError, Outside};

    const KAFKA: &str = "kafka: {bootstrap.servers: \"b:1\"}\nrules: r\n";

    fn parse(more: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let outside = Outside { env: &env, file: &|_| Ok("token-of-file\n".to_owned()) };
        Config::from_yaml(Path::new("lictor.yaml"), &format!("{KAFKA}{more}"), &outside)
    }

    fn endpoint_of(config: &Config) -> Option<String> {
        config.telemetry.as_ref().map(|telemetry| telemetry.endpoint.to_url())
    }

    #[test]
    fn nobody_is_told_unless_somebody_is_named() {
        let config = parse("", &[]).unwrap();
        assert_eq!((config.telemetry, config.notes), (None, Vec::new()));
    }

    #[test]
    fn the_file_goes_before_the_environment() {
        let env = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://agent:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=of%20env,x-team = finops"),
            ("OTEL_SERVICE_NAME", "lictor-eu"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.name=other"),
        ];
        let config = parse("", &env).unwrap();
        assert_eq!(endpoint_of(&config).as_deref(), Some("http://agent:4318"));
        let telemetry = config.telemetry.as_ref().unwrap();
        let said = |name: &str| telemetry.endpoint.headers.iter().find(|(known, _)| known == name).unwrap().1.clone();
        assert_eq!((said("api-key").as_bytes(), said("x-team").as_bytes()), (&b"of env"[..], &b"finops"[..]));
        assert_eq!(telemetry.resource[1], ("service.name".to_owned(), "lictor-eu".to_owned()));
        assert_eq!(telemetry.interval, INTERVAL);
        let more = "telemetry:\n  otlp_endpoint: http://c:4318/otlp/\n  interval: 1m\n  \
                    headers: {api-key: \"${file:t}\"}\n  attributes: {service.name: mine}\n";
        let config = parse(more, &env).unwrap();
        assert_eq!(endpoint_of(&config).as_deref(), Some("http://c:4318/otlp"));
        let telemetry = config.telemetry.as_ref().unwrap();
        assert_eq!(telemetry.endpoint.headers[0].1.as_bytes(), b"token-of-file");
        assert_eq!((telemetry.interval.as_secs(), telemetry.resource[1].1.as_str()), (60, "mine"));
        assert_eq!(config.redact("token-of-file, of env"), "***, ***");
        assert!(!format!("{telemetry:?}").contains("token"), "{telemetry:?}");
        assert_eq!(endpoint_of(&parse("telemetry: {otlp_endpoint: off}", &env).unwrap()), None);
    }

    #[test]
    fn what_the_environment_says_and_lictor_cannot_do_is_a_note() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://agent:4317");
        let check = |env: &[(&str, &str)], note: &str| {
            let config = parse("", env).unwrap();
            assert_eq!(config.telemetry, None);
            assert!(config.notes.len() == 1 && config.notes[0].contains(note), "{:?}", config.notes);
        };
        check(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "is meant for `grpc`");
        check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://agent:4318")], "which lictor does not speak");
        check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hunter2@agent:4318")], "has credentials in its URL");
        check(&[("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")], "not `key=value`");
        check(&[("OTEL_EXPORTER_OTLP_HEADERS", "a b=c")], "no HTTP header");
        let config = parse("", &[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]).unwrap();
        assert_eq!((config.telemetry, config.notes), (None, Vec::new()));
    }

    #[test]
    fn what_the_file_says_wrong_is_a_fault_that_repeats_no_header() {
        let check = |more: &str, fault: &str| {
            let error = parse(more, &[]).unwrap_err().to_string();
            assert!(error.contains(fault) && !error.contains("hunter2"), "{error}");
        };
        check("telemetry: {otlp_endpoint: \"http://c\"}", "has no port");
        check("telemetry: {otlp_endpoint: \"https://c:1\"}", "is https");
        check("telemetry: {otlp_endpoint: \"http://me:hunter2@c:1\"}", "has credentials in its URL");
        check("telemetry: {interval: 0s}", "telemetry.interval: `0s`");
        check("telemetry: {headers: {\"a b\": hunter2}}", "telemetry.headers.a b: is no HTTP header");
        check("telemetry: {headers: {a: \"hunter2\\n\"}}", "telemetry.headers.a: is no HTTP header");
        check("telemetry: {attributes: {a: \"\"}}", "telemetry.attributes.a");
    }

    #[test]
    fn percents_that_are_none_stay() {
        assert_eq!(percent_decoded("a%20b%2C100%").as_deref(), Some("a b,100%"));
        assert_eq!(percent_decoded("%zz%é").as_deref(), Some("%zz%é"));
        assert_eq!(percent_decoded("%ff"), None);
    }
}
