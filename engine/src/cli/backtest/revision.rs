//! The rules as they were: another folder, or a revision that git still has.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

use anyhow::{Context as _, anyhow, bail};

/// A rules directory or file; one that was taken from git lies in a folder that goes when this does.
pub(super) struct Folder {
    path: PathBuf,
    scratch: Option<PathBuf>,
}

impl Folder {
    /// `against` if it is there, else that revision of `rules`.
    pub(super) fn of(against: &str, rules: &Path) -> anyhow::Result<Self> {
        let path = PathBuf::from(against);
        if path.exists() {
            return Ok(Self { path, scratch: None });
        }
        Self::from_git(against, rules).with_context(|| {
            format!("--against {against} is no rules directory, and no revision of {} either", rules.display())
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks the folder of `rules` out as it was, beside an index of our own: what is being worked on stays as it is.
    fn from_git(revision: &str, rules: &Path) -> anyhow::Result<Self> {
        if revision.starts_with('-') {
            bail!("a revision does not begin with a dash");
        }
        let is_file = rules.is_file();
        let folder = if is_file { rules.parent().filter(|p| !p.as_os_str().is_empty()) } else { Some(rules) };
        let folder = folder.unwrap_or(Path::new("."));
        let prefix = git(folder, &["rev-parse", "--show-prefix"], None)?;
        let tree = format!("{revision}:{}", prefix.trim().trim_end_matches('/'));
        let scratch = env::temp_dir().join(format!("lictor-backtest-{}-{:016x}", process::id(), fastrand::u64(..)));
        fs::create_dir(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        let mut made = Self { path: scratch.join("rules"), scratch: Some(scratch.clone()) };
        let index = scratch.join("index");
        git(folder, &["read-tree", &tree], Some(&index))?;
        let to = format!("--prefix={}/", made.path.display());
        // From the top, where the index of a part of the tree is one of the whole.
        let top = git(folder, &["rev-parse", "--show-toplevel"], None)?;
        git(Path::new(top.trim_end_matches(['\n', '\r'])), &["checkout-index", "--all", &to], Some(&index))?;
        if is_file && let Some(name) = rules.file_name() {
            made.path.push(name);
        }
        Ok(made)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(scratch) = &self.scratch {
            // What cannot be removed is left to the system's own cleaning of its temporary folder.
            let _ = fs::remove_dir_all(scratch);
        }
    }
}

/// Git in `folder`, whatever repository whoever called us is at work in: in a hook its variables name that one.
fn command(folder: &Path, arguments: &[&str], index: Option<&Path>) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(arguments);
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        git.env_remove(variable);
    }
    if let Some(index) = index {
        git.env("GIT_INDEX_FILE", index);
    }
    git
}

fn git(folder: &Path, arguments: &[&str], index: Option<&Path>) -> anyhow::Result<String> {
    let output = command(folder, arguments, index).output().context("cannot run git")?;
    if !output.status.success() {
        return Err(anyhow!("git: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn repository() -> TempDir {
        let dir = TempDir::new().unwrap();
        let run = |arguments: &[&str]| git(dir.path(), arguments, None).unwrap();
        run(&["init", "--quiet"]);
        let identity = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"];
        for text in ["old", "new"] {
            fs::create_dir_all(dir.path().join("a/rules")).unwrap();
            fs::write(dir.path().join("a/rules/r.sql"), text).unwrap();
            fs::write(dir.path().join("other.txt"), text).unwrap();
            run(&["add", "."]);
            run(&[&identity[..], &["commit", "--quiet", "-m", text]].concat());
        }
        fs::write(dir.path().join("a/rules/r.sql"), "not committed").unwrap();
        dir
    }

    #[test]
    fn a_revision_is_the_folder_as_it_was_and_nothing_of_it_stays() {
        let dir = repository();
        let rules = dir.path().join("a/rules");
        let before = Folder::of("HEAD~1", &rules).unwrap();
        assert_eq!(fs::read_to_string(before.path().join("r.sql")).unwrap(), "old");
        assert!(!before.path().join("other.txt").exists());
        let one = Folder::of("HEAD", &rules.join("r.sql")).unwrap();
        assert_eq!(fs::read_to_string(one.path()).unwrap(), "new");
        assert_eq!(fs::read_to_string(rules.join("r.sql")).unwrap(), "not committed");
        let status = git(dir.path(), &["status", "--porcelain"], None).unwrap();
        assert_eq!(status, " M a/rules/r.sql\n", "the index is as it was");
        let gone = before.path().to_path_buf();
        drop(before);
        assert!(!gone.exists());
    }

    #[test]
    fn the_repository_of_whoever_calls_is_not_that_of_the_rules() {
        let git = command(Path::new("rules"), &["status"], Some(Path::new("index")));
        let variables: Vec<_> = git.get_envs().collect();
        for gone in ["GIT_DIR", "GIT_WORK_TREE"] {
            assert!(variables.contains(&(gone.as_ref(), None)), "{variables:?}");
        }
        assert!(variables.contains(&("GIT_INDEX_FILE".as_ref(), Some("index".as_ref()))), "{variables:?}");
    }

    #[test]
    fn a_folder_is_taken_as_it_is() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().to_str().unwrap();
        assert_eq!(Folder::of(path, Path::new("x")).unwrap().path(), dir.path());
        drop(Folder::of(path, Path::new("x")).unwrap());
        assert!(dir.path().exists());
    }

    #[test]
    fn what_is_neither_is_an_error_that_says_both() {
        let dir = repository();
        let error = Folder::of("no-such-thing", &dir.path().join("a/rules")).err().unwrap();
        let text = format!("{error:#}");
        assert!(text.contains("is no rules directory, and no revision of") && text.contains("git: "), "{text}");
    }
}
