//! The report for people at a terminal: progress, a table by family and type, and what failed.

use std::io::{IsTerminal, Result, Write};
use std::time::{Duration, Instant};

use super::{Report, Square, Table};
use crate::judged::Judged;
use crate::outcome::{CaseResult, Status};

/// Failures told in full; the rest are counted, and stand in the files.
const MOST_FAILURES: usize = 20;

/// A line on standard error that says how far the run is. Nothing where that is no terminal.
pub struct Progress {
    total: usize,
    done: usize,
    failed: usize,
    label: String,
    last: Option<Instant>,
    live: bool,
}

impl Progress {
    /// Progress of a run of `total` cases.
    pub fn new(label: &str, total: usize, wanted: bool) -> Progress {
        let live = wanted && std::io::stderr().is_terminal();
        Progress { total, done: 0, failed: 0, label: label.to_owned(), last: None, live }
    }
    /// Counts a result.
    pub fn step(&mut self, result: &CaseResult) {
        self.done += 1;
        self.failed += usize::from(result.status == Status::Fail);
        let due = self.last.is_none_or(|t| t.elapsed() > Duration::from_millis(100));
        if self.live && due {
            self.last = Some(Instant::now());
            let _ = write!(std::io::stderr(), "\r\x1b[K{}: {}/{} cases, {} failed  {}", self.label, self.done, self.total, self.failed, result.id);
        }
    }
    /// Clears the line.
    pub fn finish(&self) {
        if self.live {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

struct Style(bool);

impl Style {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }
    fn bad(&self, text: &str) -> String {
        self.paint("31;1", text)
    }
    fn faint(&self, text: &str) -> String {
        self.paint("2", text)
    }
}

/// Writes the report of one backend.
pub fn write(report: &Report, colour: bool, out: &mut dyn Write) -> Result<()> {
    let style = Style(colour);
    let b = &report.backend;
    writeln!(out, "{} {} on {} ({}, {})", b.backend, b.version, b.device, b.product, b.arch)?;
    writeln!(out, "{}", style.faint(&format!("suite {} · tier {} · seed {} · list {:.12} · build {}", report.suite, report.tier, report.seed, report.cases_sha256, b.build_id)))?;
    for (name, pass, fail, skipped) in report.suites() {
        let counts = format!("{pass} passed, {fail} failed, {skipped} do not apply");
        writeln!(out, "  {name:<12} {}", if fail > 0 { style.bad(&counts) } else { style.good(&counts) })?;
    }
    table(report, &style, out)?;
    failures(report, &style, out)?;
    for c in &report.profiles {
        let line = format!("profile {:<9} {}/{} required cells passed ({:.1} %), {} native, {} portable", c.profile, c.passed, c.required, c.percent(), c.native, c.portable);
        writeln!(out, "{}", if c.failed.is_empty() && c.unsupported.is_empty() { style.good(&line) } else { style.bad(&line) })?;
        for (what, cells) in [("not offered", &c.unsupported), ("failed", &c.failed), ("waived", &c.waived), ("not in this run", &c.not_run)] {
            if !cells.is_empty() {
                writeln!(out, "  {what}: {}", by_operator(cells))?;
            }
        }
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    let t = &report.totals;
    let mut parts = vec![format!("{} cases in {:.1} s", t.run, report.time_ns as f64 * 1e-9), format!("{} passed", t.native + t.portable)];
    for (n, what) in [
        (t.portable, "of them portable"),
        (t.fallback, "fallback (not counted)"),
        (t.fail, "failed"),
        (t.unexpected_pass, "passed unexpectedly"),
        (t.xfail, "failed as listed"),
        (t.waived, "waived"),
        (t.unsupported, "not offered"),
        (t.skipped, "do not apply"),
    ] {
        if n > 0 {
            parts.push(format!("{n} {what}"));
        }
    }
    let verdict = if report.passed { style.good("PASS") } else { style.bad("FAIL") };
    writeln!(out, "{verdict} {}: {}", b.device, parts.join(", "))
}

/// Cells as `add f32 f16, exp f64`.
fn by_operator(cells: &[String]) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for cell in cells {
        let (operator, dtype) = cell.split_once('/').unwrap_or((cell, ""));
        match groups.last_mut() {
            Some((last, dtypes)) if *last == operator => dtypes.push(dtype),
            _ => groups.push((operator, vec![dtype])),
        }
    }
    groups.iter().map(|(operator, dtypes)| format!("{operator} {}", dtypes.join(" "))).collect::<Vec<_>>().join(", ")
}

fn table(report: &Report, style: &Style, out: &mut dyn Write) -> Result<()> {
    let Table { families, dtypes, squares } = report.table();
    if families.is_empty() {
        return Ok(());
    }
    let text = |f: &str, d: &str| squares.iter().find(|((x, y), _)| *x == f && *y == d).map_or_else(|| "·".to_owned(), |(_, s)| square(s));
    let widths: Vec<usize> =
        dtypes.iter().map(|d| families.iter().map(|f| text(f, d).chars().count()).chain([d.len()]).max().unwrap_or(0)).collect();
    let name = families.iter().map(|f| f.len()).max().unwrap_or(0).max(12);
    write!(out, "  {:<name$}", "")?;
    dtypes.iter().zip(&widths).try_for_each(|(d, w)| write!(out, "  {d:>w$}"))?;
    writeln!(out)?;
    for family in &families {
        write!(out, "  {family:<name$}")?;
        for (dtype, width) in dtypes.iter().zip(&widths) {
            let padded = format!("{:>width$}", text(family, dtype));
            let painted = match squares.get(&(*family, *dtype)) {
                Some(s) if s.fail > 0 => style.bad(&padded),
                Some(s) if s.pass > 0 => style.good(&padded),
                _ => style.faint(&padded),
            };
            write!(out, "  {painted}")?;
        }
        writeln!(out)?;
    }
    writeln!(out, "  {}", style.faint("passed/offered, worst error in ULP or as part of the bound; - not offered, · not defined"))
}

fn square(s: &Square) -> String {
    let offered = s.pass + s.fail + s.waived;
    if offered == 0 {
        return "-".into();
    }
    let worst = s.worst.map_or_else(String::new, |w| format!(" {w}"));
    format!("{}/{offered}{worst}", s.pass)
}

fn failures(report: &Report, style: &Style, out: &mut dyn Write) -> Result<()> {
    // Required cells that are not offered are told with their profile.
    let bad: Vec<&Judged> = report.bad().filter(|j| j.family != "profile").collect();
    for j in bad.iter().take(MOST_FAILURES) {
        writeln!(out, "{} {}", style.bad("FAIL"), visible(&j.result.id))?;
        for f in &j.result.failures {
            writeln!(out, "     [{}] {}", f.check, visible(&f.message))?;
        }
        for line in j.result.output.lines().rev().take(12).collect::<Vec<_>>().iter().rev() {
            writeln!(out, "     | {}", visible(line))?;
        }
    }
    if bad.len() > MOST_FAILURES {
        let caught: Vec<String> = report.caught().iter().map(|(c, n)| format!("{c} {n}")).collect();
        writeln!(out, "     and {} more failures; by check: {}", bad.len() - MOST_FAILURES, caught.join(", "))?;
    }
    if let Some(first) = bad.first() {
        writeln!(out, "     again: flagos conformance --backend {} --tier {} --seed {} --case '{}'", report.backend.backend, report.tier, report.seed, visible(&first.result.id))?;
    }
    Ok(())
}

/// Text whose control characters cannot act on the terminal.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_names_types_failures_and_the_way_to_replay() {
        let mut out = Vec::new();
        super::write(&crate::report::sample::report(), false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains('\u{1b}'), "no escapes without colour: {text}");
        for part in ["f32", "1/1 0.50 ulp", "0/1", "[value] element 3", "--case 'exp/f16", "1/2 required", "not offered: add f64", "FAIL toy:0", "note: a note", "| frame 0"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
