//! Tells an OTLP receiver what `run` and `guard` measure of themselves, if the configuration names one.

use std::sync::Arc;

use lictor_engine::clock::SystemClock;
use lictor_engine::config::Config;
use lictor_engine::telemetry::epochs::Epochs;
use lictor_engine::telemetry::{ExportCounts, Exported, Exporter, Sender};

/// What runs for as long as it is kept, and where epochs are put.
pub(super) struct Telling {
    _exporter: Exporter,
    pub(super) epochs: Arc<Epochs>,
}

/// Begins to tell; `metrics` is the text that `/metrics` serves. None if nobody is to be told.
pub(super) fn start(
    config: &Config,
    metrics: impl Fn() -> String + Send + 'static,
    counts: &ExportCounts,
    clock: SystemClock,
) -> anyhow::Result<Option<Telling>> {
    let Some(settings) = config.telemetry.clone() else { return Ok(None) };
    let settings = settings.of_instance(&config.application_id, &config.instance_id);
    let (url, interval) = (settings.endpoint.to_url(), settings.interval);
    let epochs = Arc::new(Epochs::new(counts.clone()));
    let exported = Exported { metrics: Box::new(metrics), epochs: Arc::clone(&epochs), counts: counts.clone() };
    let sender = Sender::try_new(settings, exported, clock)?;
    let config = config.clone();
    let exporter = Exporter::start(sender, interval, move |text| config.redact(text))?;
    tracing::info!(url, interval_s = interval.as_secs_f64(), "metrics and traces of lictor's own are sent");
    Ok(Some(Telling { _exporter: exporter, epochs }))
}
