//! What two applications must say alike.

use lictor_schemas::event::EnforcementEvent;
use serde_json::Value;

/// An event without what may differ between two applications: when it was published, and under which name.
pub(crate) fn content(event: &EnforcementEvent) -> Value {
    let mut event = event.clone();
    event.data.detected_at = None;
    event.source = String::new();
    serde_json::from_slice(&event.to_json()).unwrap()
}
