//! The folder that rules are read from: the user's, or shipped ones unpacked for as long as a command runs.

use std::path::{Path, PathBuf};
use std::{fs, io, process};

use anyhow::Context as _;

/// A folder of rules.
pub(super) struct RulesFolder {
    path: PathBuf,
    is_ours: bool,
}

impl RulesFolder {
    /// The user's `own`, else one that `unpack` fills.
    pub(super) fn prepare(own: Option<PathBuf>, unpack: fn(&Path) -> io::Result<()>) -> anyhow::Result<Self> {
        if let Some(path) = own {
            return Ok(Self { path, is_ours: false });
        }
        let path = std::env::temp_dir().join(format!("lictor-rules-{}", process::id()));
        unpack(&path).with_context(|| format!("cannot unpack the shipped rules to {}", path.display()))?;
        Ok(Self { path, is_ours: true })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RulesFolder {
    fn drop(&mut self) {
        if self.is_ours {
            // What cannot be removed is left to the system's own cleaning of its temporary folder.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
