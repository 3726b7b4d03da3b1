//! Where messages go to, as the loop sees it.

use crate::error::ConnectorError;
use crate::record::Outgoing;

/// Takes messages and says when all of them are safe.
///
/// Invariant: messages of one key arrive in the order in which they were published.
pub trait Sink {
    /// Hands one message over. It is on its way then, not yet safe.
    ///
    /// # Errors
    /// The message can never be sent (too large, the client is in a fatal state). Nothing was handed over then.
    fn publish(&mut self, message: &Outgoing) -> Result<(), ConnectorError>;

    /// Returns when every published message is acknowledged by all in-sync replicas.
    ///
    /// # Errors
    /// At least one message since the last flush was not acknowledged: [`ConnectorError::Undelivered`] with the count
    /// and the first reason. The count starts again at zero.
    fn flush(&mut self) -> Result<(), ConnectorError>;
}
