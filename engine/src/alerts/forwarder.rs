//! The thread that follows the directives topic and tells an Alertmanager.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lictor_connectors::{ConnectorError, KafkaFollower, RecordRef};

use super::client::{AlertError, Alertmanager};
use super::{ALERTS_MAX, Alerts};
use crate::clock::Clock;
use crate::http::call::CallError;
use crate::metrics::Metrics;

/// How long a look at the topic waits for the first record: how long a stop may go unnoticed, not how long an alert
/// takes.
const LOOK: Duration = Duration::from_millis(250);
/// Records taken over in one look; the rest waits for the next.
const RECORDS_PER_LOOK: usize = 10_000;
/// How long a broker is waited for that has nothing to say, while the topic is read to its end.
const READ_WAIT: Duration = Duration::from_secs(30);
/// How often the topic is asked whether it has become another one.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// The pauses after failures, doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What a forwarder must know.
#[derive(Clone, Debug)]
pub struct ForwarderOptions {
    /// Names this deployment.
    pub application_id: String,
    /// The link that every alert bears, with `{rule}` for the rule's name.
    pub generator_url: Option<String>,
    /// How often what fires is sent again.
    pub resend: Duration,
}

/// When something that has failed is tried again.
#[derive(Debug, Default)]
struct Pause {
    until: Duration,
    length: Duration,
}

impl Pause {
    fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }

    fn begin(&mut self, now: Duration) -> Duration {
        self.length = (self.length * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.until = now + self.length;
        self.length
    }
}

/// What the Alertmanager is told, as opposed to how it is learnt.
#[derive(Debug)]
pub struct Teller {
    alertmanager: Alertmanager,
    alerts: Alerts,
    options: ForwarderOptions,
    metrics: Arc<Metrics>,
    pause: Pause,
    resent_at: Duration,
    reconciling: Reconciling,
    /// Before it is asked again what it has.
    asking: Pause,
}

/// Whether the Alertmanager was asked what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reconciling {
    ToAsk,
    /// It has said it; what we have not is over unless the next look at the topic brings it.
    Asked,
    Done,
}

impl Teller {
    /// Nothing is told yet.
    #[must_use]
    pub fn new(alertmanager: Alertmanager, options: ForwarderOptions, metrics: Arc<Metrics>) -> Self {
        let alerts = Alerts::new(&options.application_id, options.generator_url.as_deref(), ALERTS_MAX);
        let (pause, asking, resent_at) = (Pause::default(), Pause::default(), Duration::ZERO);
        let reconciling = Reconciling::ToAsk;
        Self { alertmanager, alerts, options, metrics, pause, resent_at, reconciling, asking }
    }

    /// The topic is read from its beginning.
    pub fn begin_anew(&mut self) {
        self.alerts.begin_anew();
        self.reconciling = Reconciling::ToAsk;
    }

    /// Takes over a record of the directives topic.
    pub fn absorb(&mut self, record: &RecordRef<'_>, clock: &dyn Clock) {
        let key = record.key.unwrap_or_default();
        match self.alerts.absorb(key, record.payload, clock.now()) {
            Ok(false) => {}
            Ok(true) => {
                if self.alerts.left_out() == 1 {
                    tracing::error!(alerts_max = ALERTS_MAX, "too many directives hold: the others are no alerts");
                }
            }
            Err(error) => tracing::warn!(offset = record.offset, %error, "a directive was not understood: no alert"),
        }
    }

    /// Tells what is to be told, if the last failure is long enough ago. To be called after every look at the topic.
    pub fn tell(&mut self, clock: &dyn Clock) {
        self.alerts.forget_lapsed(clock.now());
        self.metrics.observe_alerts(self.alerts.firing(), self.alerts.left_out());
        let now = clock.monotonic();
        if now.saturating_sub(self.resent_at) >= self.options.resend {
            self.resent_at = now;
            self.alerts.resend();
        }
        if !self.pause.is_over(now) {
            return;
        }
        match self.say(clock) {
            Ok(()) => self.pause = Pause::default(),
            Err(error) => {
                let pause_s = self.pause.begin(clock.monotonic()).as_secs();
                let url = self.alertmanager.endpoint().to_url();
                tracing::warn!(url, %error, pause_s, "the Alertmanager does not take alerts: tried again");
            }
        }
    }

    /// # Errors
    /// What is worth trying again.
    fn say(&mut self, clock: &dyn Clock) -> Result<(), AlertError> {
        self.reconcile(clock)?;
        loop {
            let batch = self.alerts.next_batch(clock.now());
            if batch.alerts.is_empty() {
                return Ok(());
            }
            let answer = self.alertmanager.post(&batch.alerts);
            self.metrics.observe_alert_post(match &answer {
                Ok(()) => "taken",
                Err(error) if error.is_temporary() => "failed",
                Err(_) => "refused",
            });
            match answer {
                Ok(()) => {}
                Err(error) if error.is_temporary() => return Err(error),
                Err(error) => {
                    let (url, alerts) = (self.alertmanager.endpoint().to_url(), batch.alerts.len());
                    tracing::error!(url, alerts, %error, "the Alertmanager refuses alerts: they are left out");
                }
            }
            self.alerts.told(batch);
        }
    }

    fn reconcile(&mut self, clock: &dyn Clock) -> Result<(), AlertError> {
        match self.reconciling {
            Reconciling::ToAsk if !self.asking.is_over(clock.monotonic()) => {}
            Reconciling::ToAsk => match self.alertmanager.reported(&self.options.application_id) {
                Ok(reported) => {
                    self.alerts.suspect(reported);
                    (self.reconciling, self.asking) = (Reconciling::Asked, Pause::default());
                }
                // Nobody is there to be told anything, either.
                Err(error @ AlertError::Call(CallError::Unreachable(_))) => return Err(error),
                // Who may not ask may still be let tell.
                Err(error) if error.is_temporary() => {
                    let pause_s = self.asking.begin(clock.monotonic()).as_secs();
                    tracing::warn!(%error, pause_s, "the Alertmanager does not say what it has: asked again");
                }
                Err(error) => {
                    tracing::warn!(%error, "the Alertmanager does not say what it has: what ended before lapses");
                    self.reconciling = Reconciling::Done;
                }
            },
            Reconciling::Asked => {
                self.alerts.end_suspects(clock.now());
                self.reconciling = Reconciling::Done;
            }
            Reconciling::Done => {}
        }
        Ok(())
    }
}

/// A running forwarder; it ends with the value, and leaves what fires as it is: whoever follows next goes on.
#[derive(Debug)]
pub struct Forwarder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Follows `directives` from now on. `redact` takes secrets out of other people's messages.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start<C: Clock + Send + 'static>(
        directives: KafkaFollower,
        teller: Teller,
        clock: C,
        redact: impl Fn(&str) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut following =
            Following { directives, teller, clock, stop: Arc::clone(&stop), checked_at: Duration::ZERO };
        let run = move || following.run(&redact);
        let thread = thread::Builder::new().name("alerts".to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that sends alerts panicked");
        }
    }
}

struct Following<C> {
    directives: KafkaFollower,
    teller: Teller,
    clock: C,
    stop: Arc<AtomicBool>,
    checked_at: Duration,
}

impl<C: Clock> Following<C> {
    fn run(&mut self, redact: &dyn Fn(&str) -> String) {
        let mut pause = Pause::default();
        while !self.is_stopped() {
            if !pause.is_over(self.clock.monotonic()) {
                thread::park_timeout(LOOK);
                continue;
            }
            if let Err(error) = self.follow(&mut pause)
                && !self.is_stopped()
            {
                let pause_s = pause.begin(self.clock.monotonic()).as_secs();
                let error = redact(&error.to_string());
                tracing::warn!(error, pause_s, "directives cannot be followed, alerts are not sent: tried again");
            }
        }
    }

    /// Follows the topic from its beginning until it is stopped.
    fn follow(&mut self, pause: &mut Pause) -> Result<(), ConnectorError> {
        let Self { directives, teller, clock, stop, .. } = self;
        teller.begin_anew();
        let goes_on = || !stop.load(Ordering::Relaxed);
        directives.read_to_end(READ_WAIT, &goes_on, &mut |record| {
            teller.absorb(record, clock);
            Ok(())
        })?;
        *pause = Pause::default();
        while !self.is_stopped() {
            self.look()?;
            self.teller.tell(&self.clock);
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), ConnectorError> {
        let Self { directives, teller, clock, .. } = self;
        directives.follow(LOOK, RECORDS_PER_LOOK, &mut |record| {
            teller.absorb(record, clock);
            Ok(())
        })?;
        let now = self.clock.monotonic();
        if now.saturating_sub(self.checked_at) >= CHECK_EVERY {
            self.checked_at = now;
            self.directives.check_partitions()?;
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
