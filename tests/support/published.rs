//! What an application has published.

use lictor_schemas::event::EnforcementEvent;

use crate::cluster::Cluster;

const END: &[u8] = b"the end";

/// All events in a topic of one partition; what is being committed is waited for. To be called once: it ends the topic
/// with a message that is no event.
pub(crate) fn published(cluster: &Cluster, purpose: &str) -> Vec<EnforcementEvent> {
    cluster.produce(purpose, vec![Some(END.to_vec())]).unwrap();
    let is_end = |payload: &Option<Vec<u8>>| payload.as_deref() == Some(END);
    let mut messages = cluster.read(purpose, |read| read.last().is_some_and(|last| is_end(&last.payload)));
    messages.pop();
    messages.iter().map(|message| EnforcementEvent::from_json(message.payload.as_ref().unwrap()).unwrap()).collect()
}
