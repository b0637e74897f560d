//! The JUnit XML report: a suite per backend and family.

use std::fmt::Write;

use super::Report;
use crate::judged::{Judged, Verdict};

/// The file's text.
pub fn text(reports: &[Report]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let (tests, failures): (usize, usize) =
        (reports.iter().map(|r| r.totals.run).sum(), reports.iter().map(|r| r.totals.fail + r.totals.unexpected_pass).sum());
    let _ = writeln!(out, "<testsuites name=\"flagos conformance\" tests=\"{tests}\" failures=\"{failures}\">");
    for report in reports {
        let mut families: Vec<&str> = Vec::new();
        for j in &report.cases {
            if !families.contains(&j.family) {
                families.push(j.family);
            }
        }
        for family in families {
            suite(&mut out, report, family);
        }
    }
    out.push_str("</testsuites>\n");
    out
}

fn suite(out: &mut String, report: &Report, family: &str) {
    let cases: Vec<&Judged> = report.cases.iter().filter(|j| j.family == family).collect();
    let bad = cases.iter().filter(|j| j.verdict.is_bad()).count();
    let skipped = cases.iter().filter(|j| skip_reason(j).is_some()).count();
    let time: f64 = cases.iter().map(|j| j.result.time_ns as f64 * 1e-9).sum();
    let name = escape(&format!("{}.{family}", report.backend.device));
    let _ = writeln!(out, "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{bad}\" skipped=\"{skipped}\" time=\"{time:.6}\">", cases.len());
    for j in cases {
        let _ = write!(out, "    <testcase classname=\"{name}\" name=\"{}\" time=\"{:.6}\"", escape(&j.result.id), j.result.time_ns as f64 * 1e-9);
        if j.verdict.is_bad() {
            out.push_str(">\n");
            for f in &j.result.failures {
                let _ = writeln!(out, "      <failure type=\"{}\" message=\"{}\"/>", f.check, escape(&f.message));
            }
            if !j.result.output.is_empty() {
                let _ = writeln!(out, "      <system-err>{}</system-err>", escape(&j.result.output));
            }
            out.push_str("    </testcase>\n");
        } else if let Some(reason) = skip_reason(j) {
            let _ = writeln!(out, "><skipped message=\"{}\"/></testcase>", escape(&reason));
        } else {
            out.push_str("/>\n");
        }
    }
    out.push_str("  </testsuite>\n");
}

fn skip_reason(j: &Judged) -> Option<String> {
    match j.verdict {
        Verdict::Unsupported => Some(format!("unsupported: {}", j.result.reason)),
        Verdict::Skipped => Some(format!("does not apply: {}", j.result.reason)),
        Verdict::Xfail => Some(format!("fails as listed: {}", j.exception)),
        Verdict::Waived => Some(format!("waived: {}", j.exception)),
        Verdict::Pass | Verdict::Fail | Verdict::UnexpectedPass => None,
    }
}

/// Text for XML content and attributes; characters XML cannot carry become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c < ' ' || ('\u{fffe}'..='\u{ffff}').contains(&c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_and_escapes() {
        let text = super::text(&[crate::report::sample::report()]);
        assert!(text.contains("tests=\"4\" failures=\"1\""), "{text}");
        assert!(text.contains("exp/f16/&lt;odd&gt;&amp;&quot;x&quot;") && text.contains("type=\"value\""));
        assert!(!text.contains('\u{1b}') && text.contains("]]&gt;"));
        // Every tag that is opened is closed.
        for tag in ["testsuites", "testsuite", "system-err"] {
            let count = |p: String| text.matches(&p).count();
            assert_eq!(count(format!("<{tag} ")) + count(format!("<{tag}>")), count(format!("</{tag}>")), "{tag}");
        }
    }
}
