//! A name on the Kafka under test that nobody else uses.

use std::env;

/// The servers under test and a name that begins with `test`; `None`, and a line that says so, if no cluster was named.
pub(crate) fn servers_and_name(test: &str) -> Option<(String, String)> {
    let Ok(servers) = env::var("KAFKA_BOOTSTRAP") else {
        eprintln!("{test}: KAFKA_BOOTSTRAP is not set: skipped");
        return None;
    };
    let scratch = tempfile::Builder::new().prefix("t").tempdir().unwrap();
    let unique = scratch.path().file_name().unwrap().to_str().unwrap();
    Some((servers, format!("{test}-{unique}")))
}
