//! Instants as RFC 3339 text, for serde's `with`.

use serde::{Deserialize, Deserializer, Serializer, de};

use crate::time::EventTime;

pub(super) fn serialize<S: Serializer>(at: &EventTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EventTime, D::Error> {
    EventTime::from_rfc3339(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// The same for instants that may be absent.
pub(super) mod option {
    use super::{Deserialize, Deserializer, EventTime, Serializer, de};

    pub(in super::super) fn serialize<S: Serializer>(at: &Option<EventTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.serialize_str(&at.to_rfc3339()),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<EventTime>, D::Error> {
        let text = Option::<String>::deserialize(d)?;
        text.map(|text| EventTime::from_rfc3339(&text).map_err(de::Error::custom)).transpose()
    }
}
