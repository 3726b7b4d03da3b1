//! Kafka, through librdkafka.
//!
//! Everything here blocks and belongs on the loop's own thread. The client threads of librdkafka fetch and send in the
//! background; what they have to say is served inside our calls, on the caller's thread.

mod admin;
mod follower;
mod group;
mod headers;
mod log;
mod membership;
mod properties;
mod restore;
mod sink;
mod source;
mod start;
mod table;
mod track;
mod transaction;

pub use admin::{Difference, TopicSpec, TopicState, count_partitions, ensure_topics, inspect_topics};
pub use follower::{AbsorbRecord, KafkaFollower};
pub(crate) use headers::Fetched;
pub use membership::{Membership, OutsideOfGroup};
pub use properties::KafkaProperties;
pub use restore::{Committed, KafkaRestorer};
pub use sink::KafkaSink;
pub use source::KafkaSource;
pub use table::{Followed, KafkaTable};
pub use track::KafkaTrack;
pub use transaction::{AbortCause, Consumed, KafkaTransactions, TransactionError};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::{ConnectorError, Fault, Retry};

/// Whose fault a code is, and whether trying again helps.
fn judge(code: Option<RDKafkaErrorCode>) -> (Fault, Retry) {
    use RDKafkaErrorCode as Code;
    match code {
        Some(
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::InvalidTopic
            | Code::InvalidConfig
            | Code::InvalidArgument
            | Code::InconsistentGroupProtocol
            | Code::InvalidSessionTimeout
            | Code::InvalidTransactionTimeout,
        ) => (Fault::User, Retry::Never),
        Some(Code::Fatal | Code::Fenced | Code::FencedInstanceId | Code::UnsupportedFeature) => {
            (Fault::External, Retry::Never)
        }
        _ => (Fault::External, Retry::Backoff),
    }
}

/// A failed call as our error.
fn refused(action: &'static str, error: &KafkaError) -> ConnectorError {
    let (fault, retry) = match error {
        KafkaError::MessageConsumptionFatal(_) => (Fault::External, Retry::Never),
        other => judge(other.rdkafka_error_code()),
    };
    ConnectorError::Kafka { action, message: error.to_string(), fault, retry }
}
