//! Whether files have changed: a number that differs if one came, went, grew, shrank or was written again.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The fingerprint of files and folders with everything below them. Names that begin with a dot count only if they are
/// named here, as with rules. What cannot be read counts as absent.
#[must_use]
pub fn fingerprint(paths: &[PathBuf]) -> u64 {
    let mut files = BTreeMap::new();
    paths.iter().for_each(|path| note(path, &mut files));
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    hasher.finish()
}

fn note(path: &Path, files: &mut BTreeMap<PathBuf, (u64, Option<SystemTime>)>) {
    // Links are followed: a mounted ConfigMap is a link to a folder that is replaced as a whole.
    let Ok(metadata) = fs::metadata(path) else { return };
    if metadata.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_hidden = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        entries.filter(|path| !is_hidden(path)).for_each(|path| note(&path, files));
    } else {
        files.insert(path.to_path_buf(), (metadata.len(), metadata.modified().ok()));
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn it_changes_with_every_file_below_and_with_nothing_else() {
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        let now = || fingerprint(&[dir.path().to_path_buf()]);
        fs::create_dir(at("cost")).unwrap();
        fs::write(at("cost/a.sql"), "a").unwrap();
        let first = now();
        assert_eq!(now(), first);
        fs::write(at(".hidden"), "x").unwrap();
        assert_eq!(now(), first);
        fs::write(at("cost/a.sql"), "ab").unwrap();
        let longer = now();
        assert_ne!(longer, first);
        fs::write(at("budgets.csv"), "team").unwrap();
        assert_ne!(now(), longer);
        fs::remove_file(at("budgets.csv")).unwrap();
        assert_eq!(now(), longer);
        assert_eq!(fingerprint(&[at("gone")]), fingerprint(&[]));
    }

    /// As kubelet mounts a ConfigMap: what changes is only where the hidden link `..data` leads.
    #[cfg(unix)]
    #[test]
    fn it_changes_when_a_mounted_config_map_is_replaced() {
        use std::os::unix::fs::symlink;

        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        let now = || fingerprint(&[dir.path().to_path_buf()]);
        for (folder, text) in [("..first", "a"), ("..second", "ab")] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("a.sql"), text).unwrap();
        }
        symlink("..first", at("..data")).unwrap();
        symlink("..data/a.sql", at("a.sql")).unwrap();
        let first = now();
        symlink("..second", at("..next")).unwrap();
        assert_eq!(now(), first, "nothing leads there yet");
        fs::rename(at("..next"), at("..data")).unwrap();
        assert_ne!(now(), first);
    }
}
