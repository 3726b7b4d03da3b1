//! How the guard is configured.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::http::HeaderName;

/// A broker that is restarted in order, or whose partitions move to another, is back within ten seconds.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// At about 1 kB each they take a gigabyte: more is a rule that selects what it should not, such as single requests.
const DIRECTIVES_MAX: usize = 1_000_000;

/// What gateways may send, and the column it is. Envoy AI Gateway reads the model from the body into `x-ai-eg-model`.
const HEADERS: [(&str, &str); 16] = [
    ("x-ai-eg-model", "request_model"),
    ("x-genops-agent-name", "agent_name"),
    ("x-genops-cost-center", "cost_center"),
    ("x-genops-customer-id", "customer_id"),
    ("x-genops-data-sensitivity", "data_sensitivity"),
    ("x-genops-environment", "environment"),
    ("x-genops-feature", "feature"),
    ("x-genops-model", "request_model"),
    ("x-genops-operation-type", "operation_type"),
    ("x-genops-project", "project"),
    ("x-genops-provider", "provider"),
    ("x-genops-region", "region"),
    ("x-genops-session-id", "session_id"),
    ("x-genops-team", "team"),
    ("x-genops-tool-name", "tool_name"),
    ("x-genops-user-id", "user_id"),
];

/// The `guard` section of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardOptions {
    /// Where it listens.
    pub http: SocketAddr,
    /// What happens to calls while what it knows may not be all there is.
    pub on_stale: OnStale,
    /// After how long without an answer of the broker that is.
    pub stale_after: Duration,
    /// Header of a request (lower case) to column, for ext_authz. If two name one column, the first by name counts.
    pub headers: BTreeMap<String, String>,
    /// How many directives are held at most.
    pub directives_max: usize,
    /// The topic of telemetry to which the calls that it stops are written, if any.
    pub decisions: Option<String>,
}

impl Default for GuardOptions {
    fn default() -> Self {
        let headers = HEADERS.iter().map(|(header, column)| ((*header).to_owned(), (*column).to_owned()));
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 8090)),
            on_stale: OnStale::default(),
            stale_after: STALE_AFTER,
            headers: headers.collect(),
            directives_max: DIRECTIVES_MAX,
            decisions: None,
        }
    }
}

/// What happens to calls while the guard does not know whether they are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStale {
    /// They go on: an outage of Kafka must not be one of everything.
    #[default]
    Allow,
    /// They are refused: better no call than one too many.
    Deny,
}

impl OnStale {
    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Reads the name of a request header, in lower case.
///
/// # Errors
/// No header can be called so.
pub(crate) fn header_name(text: &str) -> Result<String, String> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| "is not the name of an HTTP header".to_owned())?;
    Ok(name.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use lictor_schemas::columns::is_mappable;

    use super::*;

    #[test]
    fn every_default_header_is_one_and_feeds_a_column_that_exists() {
        for (header, column) in GuardOptions::default().headers {
            assert_eq!(header_name(&header).as_ref(), Ok(&header));
            assert!(is_mappable(&column), "{column}");
        }
    }

    #[test]
    fn headers_are_compared_in_lower_case() {
        assert_eq!(header_name("X-Team").as_deref(), Ok("x-team"));
        assert!(header_name("x team").is_err() && header_name("").is_err());
    }
}
