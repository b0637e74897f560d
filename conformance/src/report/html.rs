//! The HTML report: one page that needs nothing else, light or dark as the reader's system is.

use std::fmt::Write;

use super::junit::escape;
use super::{Report, Square, Table};
use crate::judged::Judged;

const STYLE: &str = "
:root{color-scheme:light dark;--line:color-mix(in srgb,currentColor 18%,transparent);--good:#1a7f37;--bad:#cf222e;--warn:#9a6700}
@media(prefers-color-scheme:dark){:root{--good:#3fb950;--bad:#f85149;--warn:#d29922}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.5rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap;vertical-align:top}
td.wrap{white-space:normal;overflow-wrap:anywhere}
td small{display:block;opacity:.7}
.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}.warn{color:var(--warn)}.none{opacity:.45}
.facts{opacity:.75}
code,pre{font:13px/1.45 ui-monospace,monospace}
pre{overflow-x:auto;padding:.7rem;border:1px solid var(--line);border-radius:6px}
details{border-bottom:1px solid var(--line);padding:.4rem 0}summary{cursor:pointer;overflow-wrap:anywhere}
input{font:inherit;padding:.3rem .6rem;width:22rem;max-width:100%}
";

const SCRIPT: &str = "
for(const box of document.querySelectorAll('input[data-for]'))box.addEventListener('input',()=>{
 const words=box.value.toLowerCase().split(/\\s+/);
 for(const row of document.querySelectorAll('#'+box.dataset.for+' tbody tr')){
  const text=row.textContent.toLowerCase();row.hidden=!words.every(w=>text.includes(w))}})
";

/// The page's text.
pub fn text(reports: &[Report]) -> String {
    let mut out = String::new();
    let verdict = if reports.iter().all(|r| r.passed) { "passed" } else { "failed" };
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>flagos conformance: {verdict}</title><style>{STYLE}</style></head><body><h1>flagos conformance</h1>"
    );
    if reports.is_empty() {
        out.push_str("<p>Nothing was tested.</p>");
    }
    if reports.len() > 1 {
        overview(&mut out, reports);
    }
    for (i, report) in reports.iter().enumerate() {
        section(&mut out, report, i);
    }
    let _ = writeln!(out, "<script>{SCRIPT}</script></body></html>");
    out
}

/// All backends at a glance, each with the way to its section.
fn overview(out: &mut String, reports: &[Report]) {
    out.push_str("<div class=scroll><table><thead><tr><th>Backend</th><th>Device</th><th>Verdict</th><th>Passed</th><th>Failed</th><th>Not offered</th><th>Time</th></tr></thead><tbody>");
    for (i, report) in reports.iter().enumerate() {
        let (t, b) = (&report.totals, &report.backend);
        let (class, verdict) = if report.passed { ("good", "passed") } else { ("bad", "failed") };
        let _ = write!(
            out,
            "<tr><th><a href=\"#backend{i}\">{}</a></th><td>{}</td><td class={class}>{verdict}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.1} s</td></tr>",
            escape(&b.backend),
            escape(&b.product),
            t.native + t.portable,
            t.fail,
            t.unsupported,
            report.time_ns as f64 * 1e-9
        );
    }
    out.push_str("</tbody></table></div>");
}

fn section(out: &mut String, report: &Report, index: usize) {
    let (b, t) = (&report.backend, &report.totals);
    let verdict = if report.passed { "<span class=good>passed</span>" } else { "<span class=bad>failed</span>" };
    let _ = write!(out, "<h2 id=backend{index}>{} on {}: {verdict}</h2>", escape(&b.backend), escape(&b.device));
    let facts = [
        ("Device", format!("{} ({})", b.product, b.arch)),
        ("Driver", b.driver.clone()),
        ("Version", format!("{} by {}, build {}", b.version, b.vendor, b.build_id)),
        ("Library", if b.library.is_empty() { "linked into the host".to_owned() } else { format!("{} · SHA-256 {}", b.library, b.library_sha256) }),
        ("Suite", format!("{} · tier {} · seed {} · case list {}", report.suite, report.tier, report.seed, report.cases_sha256)),
        ("Time", format!("{:.1} s", report.time_ns as f64 * 1e-9)),
    ];
    out.push_str("<table class=facts>");
    for (name, value) in facts.iter().filter(|(_, v)| !v.is_empty()) {
        let _ = write!(out, "<tr><th>{name}</th><td class=wrap>{}</td></tr>", escape(value));
    }
    out.push_str("</table>");
    let _ = write!(
        out,
        "<p>{} cases: {} passed natively, {} by portable kernels, {} failed, {} passed unexpectedly, {} failed as listed, {} waived, {} not offered, \
         {} do not apply; {} ran on another device and count for nothing.</p>",
        t.run, t.native, t.portable, t.fail, t.unexpected_pass, t.xfail, t.waived, t.unsupported, t.skipped, t.fallback
    );
    profiles(out, report);
    table(out, report);
    failures(out, report);
    for note in &report.notes {
        let _ = write!(out, "<p class=warn>{}</p>", escape(note));
    }
    cases(out, report, index);
}

fn profiles(out: &mut String, report: &Report) {
    for c in &report.profiles {
        let class = if c.failed.is_empty() && c.unsupported.is_empty() { "good" } else { "bad" };
        let _ = write!(out, "<p class={class}>Profile {}: {} of {} required cells passed ({:.1} %)</p>", escape(&c.profile), c.passed, c.required, c.percent());
        for (what, cells) in [("Not offered", &c.unsupported), ("Failed", &c.failed), ("Waived", &c.waived), ("Not in this run", &c.not_run)] {
            if !cells.is_empty() {
                let _ = write!(out, "<details><summary>{what}: {}</summary><p><code>{}</code></p></details>", cells.len(), escape(&cells.join(" ")));
            }
        }
    }
}

fn table(out: &mut String, report: &Report) {
    let Table { families, dtypes, squares } = report.table();
    out.push_str("<div class=scroll><table><thead><tr><th></th>");
    for dtype in &dtypes {
        let _ = write!(out, "<th>{dtype}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    for family in &families {
        let _ = write!(out, "<tr><th>{family}</th>");
        for dtype in &dtypes {
            match squares.get(&(*family, *dtype)) {
                None => out.push_str("<td class=none>·</td>"),
                Some(s) => square(out, s),
            }
        }
        out.push_str("</tr>");
    }
    for (name, pass, fail, skipped) in report.suites() {
        let class = if fail > 0 { "bad" } else { "good" };
        let _ = write!(out, "<tr><th>{name}</th><td class={class} colspan={}>{pass} passed, {fail} failed, {skipped} do not apply</td></tr>", dtypes.len().max(1));
    }
    out.push_str("</tbody></table></div><p class=facts>Passed of offered cases, and the worst error in ULP or as part of the bound.</p>");
}

fn square(out: &mut String, s: &Square) {
    let offered = s.pass + s.fail + s.waived;
    if offered == 0 {
        out.push_str("<td class=none>not offered</td>");
        return;
    }
    let class = if s.fail > 0 { "bad" } else if s.waived > 0 { "warn" } else { "good" };
    let worst = s.worst.map_or_else(String::new, |w| format!("<small>{w}</small>"));
    let _ = write!(out, "<td class={class}>{}/{offered}{worst}</td>", s.pass);
}

fn failures(out: &mut String, report: &Report) {
    let bad: Vec<&Judged> = report.bad().collect();
    if bad.is_empty() {
        return;
    }
    let _ = write!(out, "<h3>Failures</h3>");
    for j in bad {
        let first = j.result.failures.first().map_or_else(String::new, |f| format!("{}: {}", f.check, f.message));
        let _ = write!(out, "<details><summary><code>{}</code> <span class=bad>{}</span></summary><ul>", escape(&j.result.id), escape(&first));
        for f in &j.result.failures {
            let _ = write!(out, "<li><b>{}</b> {}<br><span class=facts>{}</span></li>", f.check, escape(&f.message), escape(f.check.doc()));
        }
        out.push_str("</ul>");
        if !j.result.output.is_empty() {
            let _ = write!(out, "<pre>{}</pre>", escape(&j.result.output));
        }
        out.push_str("</details>");
    }
}

fn cases(out: &mut String, report: &Report, index: usize) {
    let _ = write!(
        out,
        "<details><summary>All {} cases</summary><p><input data-for=cases{index} placeholder=\"words to look for\" aria-label=\"filter\"></p>\
         <div class=scroll><table id=cases{index}><thead><tr><th>Case</th><th>Verdict</th><th>Error</th><th>Implementation</th><th>ms</th></tr></thead><tbody>",
        report.cases.len()
    );
    for j in &report.cases {
        let class = if j.verdict.is_bad() { "bad" } else { "" };
        let verdict = serde_json::to_value(j.verdict).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        let worst = j.result.worst.map_or_else(String::new, |w| w.to_string());
        let what = if j.result.implementation.is_empty() { &j.result.reason } else { &j.result.implementation };
        let _ = write!(
            out,
            "<tr><td><code>{}</code></td><td class=\"{class}\">{verdict}</td><td>{worst}</td><td class=wrap>{}</td><td>{:.2}</td></tr>",
            escape(&j.result.id),
            escape(what),
            j.result.time_ns as f64 * 1e-6
        );
    }
    out.push_str("</tbody></table></div></details>");
}

#[cfg(test)]
mod tests {
    #[test]
    fn several_backends_are_listed_with_links_to_their_sections() {
        let text = super::text(&[crate::report::sample::report(), crate::report::sample::report()]);
        for i in 0..2 {
            assert!(text.contains(&format!("href=\"#backend{i}\"")) && text.contains(&format!("<h2 id=backend{i}>")), "{i}");
        }
        assert_eq!(text.matches("<td").count(), text.matches("</td>").count());
    }

    #[test]
    fn the_page_stands_alone_and_escapes_what_backends_say() {
        let text = super::text(&[crate::report::sample::report()]);
        for part in ["exp/f16/&lt;odd&gt;", "1/1<small>0.50 ulp</small>", "frame 0", "Profile core", "prefers-color-scheme"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("<odd>") && !text.contains("http"), "nothing is fetched, nothing is injected");
        assert_eq!(text.matches("<details").count(), text.matches("</details>").count());
        assert_eq!(text.matches("<td").count(), text.matches("</td>").count());
    }
}
