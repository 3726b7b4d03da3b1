//! Outcomes as JUnit XML, which every CI system reads.

use std::fmt::Write as _;
use std::time::Duration;

use super::run::Outcome;

/// One suite per test file; a fault is a failure whose text is what `lictor test` prints.
#[must_use]
pub fn junit(outcomes: &[Outcome]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(xml, "<testsuites name=\"lictor test\"{}>", totals(outcomes));
    for of_file in outcomes.chunk_by(|a, b| a.file == b.file) {
        let file = escaped(&of_file[0].file.display().to_string());
        let _ = writeln!(xml, "  <testsuite name=\"{file}\"{}>", totals(of_file));
        for Outcome { name, faults, took, .. } in of_file {
            let name = escaped(name);
            let _ = write!(xml, "    <testcase classname=\"{file}\" name=\"{name}\" time=\"{}\"", seconds(*took));
            match faults.first() {
                None => xml.push_str("/>\n"),
                Some(first) => {
                    let message = escaped(first.lines().next().unwrap_or_default());
                    let text = escaped(&faults.join("\n"));
                    let _ = writeln!(xml, ">\n      <failure message=\"{message}\">{text}</failure>\n    </testcase>");
                }
            }
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn totals(outcomes: &[Outcome]) -> String {
    let failures = outcomes.iter().filter(|outcome| !outcome.faults.is_empty()).count();
    let took = seconds(outcomes.iter().map(|outcome| outcome.took).sum());
    format!(" tests=\"{}\" failures=\"{failures}\" errors=\"0\" time=\"{took}\"", outcomes.len())
}

fn seconds(took: Duration) -> String {
    format!("{:.3}", took.as_secs_f64())
}

/// Text in XML; characters that XML 1.0 has no way to write become U+FFFD.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' => escaped.push(c),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c < ' ' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::rule_test::Witnessed;

    fn outcome(file: &str, name: &str, faults: &[&str]) -> Outcome {
        Outcome {
            file: PathBuf::from(file),
            name: name.to_owned(),
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
            witnessed: Witnessed::default(),
            took: Duration::from_millis(12),
            number: 0,
            unmet: Vec::new(),
        }
    }

    #[test]
    fn files_are_suites_and_faults_are_failures() {
        let outcomes = [
            outcome("a.test.yaml", "80 % & more", &[]),
            outcome("a.test.yaml", "\"<b>\"", &["step 1: x\n- a: 1\n+ a: \u{1}"]),
            outcome("b.test.yaml", "c", &[]),
        ];
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites name=\"lictor test\" tests=\"3\" failures=\"1\" errors=\"0\" time=\"0.036\">
  <testsuite name=\"a.test.yaml\" tests=\"2\" failures=\"1\" errors=\"0\" time=\"0.024\">
    <testcase classname=\"a.test.yaml\" name=\"80 % &amp; more\" time=\"0.012\"/>
    <testcase classname=\"a.test.yaml\" name=\"&quot;&lt;b&gt;&quot;\" time=\"0.012\">
      <failure message=\"step 1: x\">step 1: x\n- a: 1\n+ a: \u{fffd}</failure>
    </testcase>
  </testsuite>
  <testsuite name=\"b.test.yaml\" tests=\"1\" failures=\"0\" errors=\"0\" time=\"0.012\">
    <testcase classname=\"b.test.yaml\" name=\"c\" time=\"0.012\"/>
  </testsuite>
</testsuites>
";
        assert_eq!(junit(&outcomes), expected);
    }
}
