//! `${env:NAME}` and `${file:/path}` inside values of the configuration.
//!
//! What is read so may be a secret: messages show the text as it was written, never what it became.

use std::io;
use std::path::Path;

/// Where values come from that are not in the file: the environment and other files, or what a test puts there.
pub struct Outside<'a> {
    /// The value of an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file; a relative path counts from the folder of the configuration.
    pub file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// A value and what of it came from outside.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    pub(super) secrets: Vec<String>,
}

/// Replaces every `${…}` in `text`; `$${` stands for `${`.
pub(super) fn expand(text: &str, outside: &Outside<'_>) -> Result<Expanded, String> {
    let mut expanded = Expanded { text: String::with_capacity(text.len()), secrets: Vec::new() };
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            expanded.text.push_str(before);
            expanded.text.push_str("${");
            rest = &reference[2..];
            continue;
        }
        expanded.text.push_str(before);
        let end = reference.find('}').ok_or_else(|| format!("`{reference}` has no closing brace"))?;
        let value = look_up(&reference[2..end], outside)?;
        expanded.text.push_str(&value);
        expanded.secrets.push(value);
        rest = &reference[end + 1..];
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

fn look_up(reference: &str, outside: &Outside<'_>) -> Result<String, String> {
    match reference.split_once(':') {
        Some(("env", name)) => (outside.env)(name).ok_or_else(|| format!("environment variable `{name}` is not set")),
        Some(("file", path)) => {
            let text = (outside.file)(Path::new(path)).map_err(|error| format!("file `{path}`: {error}"))?;
            // Editors end files with a line break; secrets do not.
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        _ => Err(format!("`${{{reference}}}` is neither ${{env:NAME}} nor ${{file:/path}}; write $${{ for ${{")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Expanded, String> {
        let env = |name: &str| (name == "USER_NAME").then(|| "ada".to_owned());
        let file = |path: &Path| match path.to_str() {
            Some("/run/secret") => Ok("s3cret\n".to_owned()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        expand(text, &Outside { env: &env, file: &file })
    }

    #[test]
    fn references_are_replaced_wherever_they_stand() {
        let expanded = check("<${env:USER_NAME}:${file:/run/secret}>").unwrap();
        assert_eq!(expanded.text, "<ada:s3cret>");
        assert_eq!(expanded.secrets, ["ada", "s3cret"]);
    }

    #[test]
    fn text_without_references_and_doubled_dollars_stay() {
        assert_eq!(check("a $b {c} $").unwrap().text, "a $b {c} $");
        let doubled = check("$${env:USER_NAME}").unwrap();
        assert_eq!((doubled.text.as_str(), doubled.secrets.len()), ("${env:USER_NAME}", 0));
    }

    #[test]
    fn what_cannot_be_replaced_is_named() {
        let message = |text| check(text).unwrap_err();
        assert_eq!(message("${env:NOPE}"), "environment variable `NOPE` is not set");
        assert_eq!(message("${file:/nope}"), "file `/nope`: entity not found");
        assert_eq!(message("${env:NOPE"), "`${env:NOPE` has no closing brace");
        assert!(message("${HOME}").starts_with("`${HOME}` is neither ${env:NAME} nor ${file:/path}"));
    }
}
