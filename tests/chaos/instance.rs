//! The real binary: started, signalled, watched.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use lictor_engine::clock::{Clock, SystemClock};
use tempfile::TempDir;

use crate::oracle::Layout;

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(20);
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
/// Lines of a log that are shown.
const TAIL_LINES: usize = 12;

/// A configuration that all instances share, and their logs.
pub(crate) struct Deployment {
    binary: PathBuf,
    folder: PathBuf,
    starts: AtomicU32,
    /// Removed when dropped, unless logs are to be kept.
    _scratch: Option<TempDir>,
}

/// How a process has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Status 0.
    Stopped,
    /// By a failpoint.
    Aborted,
    /// By kill -9.
    Killed,
    /// By itself, because something is wrong: the last lines of its log.
    Failed(String),
}

impl Deployment {
    pub(crate) fn new(layout: &Layout<'_>, servers: &str) -> Self {
        let kept = env::var_os("LICTOR_CHAOS_LOGS").map(PathBuf::from);
        let scratch = kept.is_none().then(|| TempDir::new().unwrap());
        let folder = kept.or_else(|| Some(scratch.as_ref()?.path().to_path_buf())).unwrap();
        let binary = env::var_os("LICTOR_CHAOS_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_lictor").into()).into();
        fs::create_dir_all(&folder).unwrap();
        let text = format!(
            "application_id: {application}\nshards: {shards}\ndelivery: exactly_once\nrules: {rules}\nhttp: off\n\
             kafka: {{bootstrap.servers: \"{servers}\", consumer.session.timeout.ms: 6000}}\n\
             topics: {{traces: [{input}], enforcement: enforcement, directives: directives, dead_letter: dead,\n\
             \x20 directives_shadow: shadow, late: late, otlp: otlp, otlp_encoding: otlp_json}}\n\
             time: {{idle_after: 10m}}\n",
            application = layout.application_id,
            shards = layout.shards,
            rules = layout.rules.display(),
            input = layout.topic,
        );
        fs::write(folder.join("lictor.yaml"), text).unwrap();
        Self { binary, folder, starts: AtomicU32::new(0), _scratch: scratch }
    }

    /// Starts the instance `name`; `failpoint` is what `LICTOR_FAILPOINT` takes.
    pub(crate) fn start(&self, name: &str, failpoint: Option<&str>) -> Instance {
        let number = self.starts.fetch_add(1, Ordering::Relaxed);
        let log = self.folder.join(format!("{number:03}-{name}.log"));
        let stderr = File::create(&log).unwrap();
        let mut lictor = Command::new(&self.binary);
        lictor.args(["run", "--instance", name, "-c"]).arg(self.folder.join("lictor.yaml")).stderr(stderr);
        lictor.env("LICTOR_FAILPOINT", failpoint.unwrap_or_default());
        lictor.env("LICTOR_LOG", env::var("LICTOR_LOG").as_deref().unwrap_or("info"));
        Instance { child: lictor.spawn().unwrap(), name: name.to_owned(), log }
    }

    /// How many processes were started.
    pub(crate) fn starts(&self) -> u32 {
        self.starts.load(Ordering::Relaxed)
    }

    /// How many lines of all logs have `text` in them.
    pub(crate) fn count(&self, text: &str) -> usize {
        let of = |path: &Path| {
            let log = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&log).lines().filter(|line| line.contains(text)).count()
        };
        let logs = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")).map(|path| of(&path)).sum()
    }
}

/// A running `lictor run`; dropping it is `kill -9`.
pub(crate) struct Instance {
    child: Child,
    pub(crate) name: String,
    log: PathBuf,
}

impl Instance {
    /// Sends a signal, by its name as in `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        // The process may have ended meanwhile: its end is seen elsewhere.
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).output();
        assert!(sent.is_ok(), "{sent:?}");
    }

    /// How the process has ended, if it has.
    pub(crate) fn end(&mut self) -> Option<End> {
        let status = self.child.try_wait().unwrap()?;
        Some(self.end_of(status))
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<End> {
        self.watch(patience, |instance| {
            // One that was stopped from outside may come to a failpoint that stops it once more.
            if instance.is_stopped() {
                instance.signal("CONT");
            }
            instance.end()
        })
    }

    /// Waits until the process has ended or was stopped by SIGSTOP; `Ok` if it was stopped.
    pub(crate) fn wait_for_stop(&mut self, patience: Duration) -> Option<Result<(), End>> {
        self.watch(patience, |instance| match instance.end() {
            Some(end) => Some(Err(end)),
            None => instance.is_stopped().then_some(Ok(())),
        })
    }

    /// kill -9; how the process has ended, which may have been something else just before.
    pub(crate) fn kill(&mut self) -> End {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        self.end_of(status)
    }

    fn watch<T>(&mut self, patience: Duration, look: impl Fn(&mut Self) -> Option<T>) -> Option<T> {
        let clock = SystemClock::start();
        loop {
            let seen = look(self);
            if seen.is_some() || clock.monotonic() >= patience {
                return seen;
            }
            thread::park_timeout(LOOK);
        }
    }

    /// Whether it was stopped by SIGSTOP; `stat` has the state behind the command's name.
    fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    }

    fn end_of(&self, status: ExitStatus) -> End {
        match (status.code(), status.signal()) {
            (Some(0), _) => End::Stopped,
            (_, Some(SIGABRT)) => End::Aborted,
            (_, Some(SIGKILL)) => End::Killed,
            _ => End::Failed(format!("{status}: {}", self.tail())),
        }
    }

    /// The last lines that this process has written.
    fn tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        format!("{}:\n{last}", self.log.display())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
