//! h2spec against both listeners of the mesh: what RFC 9113 and RFC 7541 demand of a server.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::interop::{self, Certificates, Server};
use crate::report::Tally;
use crate::{say, tools};

/// The listeners: what it is, the program of ours that has it, a path that answers a GET with some bytes.
const LISTENERS: [(&str, &str, &str); 2] = [
    ("the gRPC listener", "interop_server", "/grpc.testing.TestService/StreamingInputCall"),
    ("the gateway's listener", "gateway", "/"),
];

/// What may come in place of what h2spec wants: section, title, what comes, and why it is right. None breaks a MUST.
const ALLOWED: &[(&str, &str, &str, &str)] = &[
    (
        "http2/3.5",
        "Sends invalid connection preface",
        "connection reset by peer",
        "RFC 9113, 3.4 wants the connection ended; a reset ends it, h2spec counts an orderly close alone",
    ),
    (
        "http2/3.5",
        "Sends invalid connection preface",
        "looked like an HTTP/1.1 header",
        "RFC 9112, 2.2: where HTTP/1.1 is spoken too it is a malformed request, answered 400 and closed",
    ),
];

/// One of its cases.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Case {
    /// As `http2/6.9.2`.
    section: String,
    title: String,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// The answer was too short for it.
    Skipped,
    /// What came in place of what was wanted.
    Failed(String),
}

/// Runs it against each listener. What it skips is a failure too: then the path answers too little.
pub(crate) fn tally(root: &Path) -> Tally {
    let program = match tools::named("h2spec").and_then(tools::install) {
        Ok(program) => program,
        Err(error) => return Tally::left_out(format!("h2spec: {error:#}")),
    };
    let certificates = match Certificates::make(root) {
        Ok(certificates) => certificates,
        Err(error) => {
            say::note(&format!("    FAILED: certificates: {error:#}"));
            return Tally::one(false);
        }
    };
    let mut tally = Tally::default();
    for (what, server, path) in LISTENERS {
        for (over, tls) in [("", None), (" over TLS", Some(&certificates))] {
            let what = format!("{what}{over}");
            match judge(root, &program, server, path, tls) {
                Ok(cases) => tally.add(counted(&what, &cases)),
                Err(error) => {
                    say::note(&format!("    FAILED: {what}: {error:#}"));
                    tally.add(Tally::one(false));
                }
            }
        }
    }
    tally
}

fn judge(
    root: &Path,
    program: &Path,
    server: &str,
    path: &str,
    tls: Option<&Certificates>,
) -> Result<Vec<Case>> {
    let flags = tls.map_or(Vec::new(), |certificates| certificates.flags().into());
    let running = Server::ours(root, server, &flags)?;
    let report = interop::scratch(root).join("h2spec.xml");
    let output = Command::new(program)
        .args(["--host", "127.0.0.1", "--port", &running.port.to_string(), "--path", path])
        .args(tls.map_or(&[][..], |_| &["--tls", "--insecure"]))
        .args(["--strict", "--timeout", "2", "--junit-report"])
        .arg(&report)
        .stdin(Stdio::null())
        .output()
        .context("cannot run h2spec")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let cases = fs::read_to_string(&report).map(|text| cases(&text)).unwrap_or_default();
    let stays = running.alive();
    // Its report goes with it.
    running.end(root, !cases.is_empty() && stays);
    ensure!(!cases.is_empty(), "h2spec made no report: {said}");
    ensure!(stays, "the server died");
    Ok(cases)
}

fn counted(what: &str, cases: &[Case]) -> Tally {
    let mut tally = Tally::default();
    for Case { section, title, outcome } in cases {
        let came = match outcome {
            Outcome::Passed => {
                tally.passed += 1;
                continue;
            }
            Outcome::Skipped => "it was skipped",
            Outcome::Failed(came) => came,
        };
        let allowed = (ALLOWED.iter())
            .find(|(at, named, it, _)| at == section && named == title && came.contains(it));
        match allowed {
            Some((.., why)) => {
                say::note(&format!("    allowed: {what}, {section}: {title}: {why}"))
            }
            None => {
                say::note(&format!("    FAILED: {what}, {section}: {title}: {came}"));
                tally.failed += 1;
            }
        }
    }
    say::note(&format!("    {what}: {} of {} cases passed", tally.passed, cases.len()));
    tally
}

/// Reads what h2spec writes for JUnit: one element a line, and what it holds on the lines after it.
fn cases(report: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for element in report.split("<testcase ").skip(1) {
        let element = element.split("</testcase>").next().unwrap_or_default();
        let value = |name: &str| {
            let rest = element.split_once(&format!("{name}=\""))?.1;
            Some(plain(rest.split('"').next()?))
        };
        let (Some(section), Some(title)) = (value("package"), value("classname")) else { continue };
        let held = element.split_once('>').map_or("", |(_, held)| held);
        let outcome = if held.contains("<skipped") {
            Outcome::Skipped
        } else if held.contains("<error") || held.contains("<failure") {
            let words = held.split_once('>').map_or("", |(_, words)| words);
            let words = words.split("</").next().unwrap_or_default();
            Outcome::Failed(plain(words).split_whitespace().collect::<Vec<_>>().join(" "))
        } else {
            Outcome::Passed
        };
        cases.push(Case { section, title, outcome });
    }
    cases
}

/// Text of XML as it was meant.
fn plain(text: &str) -> String {
    let pairs = [
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&quot;", "\""),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#xA;", " "),
        ("&amp;", "&"),
    ];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="2. Streams" package="generic/2" id="2" tests="3" skipped="1" failures="0" errors="1">
    <testcase package="generic/2" classname="Sends a PRIORITY frame" time="0.0004"></testcase>
    <testcase package="http2/6.9.2" classname="Changes &#34;it&#34;" time="0.0000">
      <skipped></skipped>
    </testcase>
    <testcase package="http2/8.2" classname="Sends a PUSH_PROMISE frame" time="2.0">
      <error>Connection closed
Timeout</error>
    </testcase>
  </testsuite>
</testsuites>"#;

    #[test]
    fn a_report_is_read_case_by_case() {
        let case = |section: &str, title: &str, outcome| Case {
            section: section.to_owned(),
            title: title.to_owned(),
            outcome,
        };
        assert_eq!(
            cases(REPORT),
            [
                case("generic/2", "Sends a PRIORITY frame", Outcome::Passed),
                case("http2/6.9.2", "Changes \"it\"", Outcome::Skipped),
                case(
                    "http2/8.2",
                    "Sends a PUSH_PROMISE frame",
                    Outcome::Failed("Connection closed Timeout".to_owned())
                ),
            ]
        );
    }

    #[test]
    fn what_fails_or_is_skipped_is_a_failure() {
        let tally = counted("a listener", &cases(REPORT));
        assert_eq!((tally.passed, tally.failed, tally.skipped), (1, 2, 0));
    }

    #[test]
    fn what_is_allowed_is_allowed_for_what_came_and_nothing_else() {
        let case = |came: &str| Case {
            section: ALLOWED[0].0.to_owned(),
            title: ALLOWED[0].1.to_owned(),
            outcome: Outcome::Failed(format!("Connection closed {came}")),
        };
        assert_eq!(counted("a listener", &[case(ALLOWED[0].2)]), Tally::default());
        assert_eq!(counted("a listener", &[case("Timeout")]).failed, 1);
    }

    #[test]
    fn no_more_than_three_are_allowed() {
        assert!(ALLOWED.len() <= 3);
    }
}
