//! The suite tested: a backend made of the references passes all of it, and each planted defect is caught by the check made for it.

mod reference;

use std::ffi::OsString;
use std::time::Duration;

use flagos_conformance::check::Check;
use flagos_conformance::judged::Verdict;
use flagos_conformance::{Options, Summary, Target, Tier, run, worker_main};
use flagos_runtime::discover::DirectBackend;

/// The worker process of the tests below: they run this test alone in a process of its own.
#[test]
#[ignore = "started by the other tests as their worker"]
fn worker() {
    let code = worker_main(&[DirectBackend::new("reference", reference::entry)]);
    std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
}

fn options(defect: &str, cases: &[&str]) -> Options {
    let mut worker: Vec<OsString> = vec!["/usr/bin/env".into(), format!("{}={defect}", reference::DEFECT).into()];
    worker.push(std::env::current_exe().unwrap().into());
    worker.extend(["worker", "--exact", "--ignored", "--nocapture", "--quiet"].map(OsString::from));
    Options {
        embedded: vec!["reference".into()],
        targets: vec![Target::Embedded("reference".into())],
        cases: cases.iter().map(|c| (*c).to_owned()).collect(),
        worker,
        progress: false,
        ..Options::default()
    }
}

fn summary(options: &Options) -> (Summary, String) {
    let mut out = Vec::new();
    let summary = run(options, &mut out).unwrap_or_else(|e| panic!("{e}"));
    (summary, String::from_utf8(out).unwrap())
}

#[test]
fn a_backend_made_of_the_references_passes_the_core_profile() {
    let (summary, text) = summary(&Options { profiles: vec!["core".into(), "blas-1".into(), "blas-2".into(), "blas-3".into(), "fft".into()], jobs: 2, ..options("", &[]) });
    assert!(summary.passed(), "{text}");
    let report = &summary.reports[0];
    assert_eq!((report.totals.fail, report.totals.unsupported), (0, 0), "{text}");
    for c in &report.profiles {
        assert_eq!((c.passed, c.native), (c.required, c.required), "{c:?}");
    }
    assert_eq!(report.cases.len(), flagos_conformance::plan::Plan::new(Tier::Smoke).entries().len(), "every case has a result");
}

#[test]
fn random_calls_of_the_references_pass() {
    let (summary, text) = summary(&Options { tier: Tier::Quick, ..options("", &["add/*/property", "sum/f32/property", "softmax/f16/property", "where/f32/property"]) });
    assert!(summary.passed(), "{text}");
    assert!(summary.reports[0].totals.native > 10, "{text}");
}

/// (defect, cases that see it, check that is to catch it first)
const MUTATIONS: &[(&str, &str, Check)] = &[
    ("last-element", "add/f32/*", Check::Value),
    ("last-element", "blas.gemm/sgemm/*", Check::Value),
    ("bool", "eq/f32/*", Check::Value),
    ("noise", "mul/f32/*", Check::Determinism),
    ("accumulates", "add/i32/*", Check::Stale),
    ("accumulates", "add/f64/*", Check::Stale),
    ("stale-result", "add/f32/*", Check::Stale),
    ("skips-last", "add/f32/*", Check::Unwritten),
    ("ignores-strides", "add/f32/strided*", Check::Guard),
    ("overrun", "add/f32/*", Check::Guard),
    ("overrun", "blas.axpy/saxpy/*", Check::Guard),
    ("modifies-input", "add/f32/*", Check::InputModified),
    ("in-place", "relu/f32/*", Check::InPlace),
    ("in-place", "fft.c2c/f32/*", Check::InPlace),
    ("last-element", "fft.r2c/f64/*", Check::Value),
    ("workspace-overrun", "add/f32/*", Check::Workspace),
    ("workspace-zero", "add/f32/*", Check::Workspace),
    ("plan-refuses", "add/f32/*", Check::SupportLies),
    ("plans-unoffered", "add/f32/*", Check::SupportLies),
    ("refusal-code", "add/f32/*", Check::RefusalCode),
    ("launch-allocates", "add/f32/*", Check::LaunchAllocates),
    ("launch-fails", "add/f32/*", Check::Error),
    ("panic", "add/f32/*", Check::Panic),
    ("crash", "add/f32/*", Check::Crash),
    ("exit", "add/f32/*", Check::Crash),
    ("leak", "memory/leak", Check::Leak),
    ("exhaustion", "memory/huge", Check::Exhaustion),
    ("short-write", "memory/round-trip", Check::Transfer),
    ("copy-offset", "memory/copy", Check::Copy),
    ("fill-byte", "memory/fill", Check::Fill),
    ("never-idle", "stream/idle", Check::Order),
    ("timeline-falls", "stream/timeline", Check::Timeline),
    ("dropped-wait", "stream/wait-before-signal", Check::CrossWait),
    ("deadline", "stream/deadline", Check::Deadline),
];

#[test]
fn each_defect_is_caught_by_its_check() {
    let mut lost = Vec::new();
    for (defect, cases, check) in MUTATIONS {
        let (summary, text) = summary(&options(defect, &[cases]));
        let bad: Vec<_> = summary.reports[0].bad().collect();
        let first = bad.iter().filter_map(|j| j.result.failures.first());
        if summary.exit_code() != 1 || !first.clone().any(|f| f.check == *check) {
            lost.push(format!("{defect} in {cases}: expected {check}, caught {:?}\n{text}", first.map(|f| f.check).collect::<Vec<_>>()));
        }
    }
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

#[test]
fn a_crash_tells_its_signal_and_where_and_the_run_goes_on() {
    let (summary, text) = summary(&options("crash", &["relu/f32/*", "memory/copy"]));
    let report = &summary.reports[0];
    let crashed: Vec<_> = report.bad().collect();
    assert!(crashed.len() > 1, "{text}");
    for j in &crashed {
        assert!(j.result.failures[0].message.contains("SIGSEGV"), "{text}");
        assert!(j.result.output.contains('['), "a backtrace with addresses: {}", j.result.output);
    }
    assert!(report.cases.iter().any(|j| j.result.id == "memory/copy" && j.verdict == Verdict::Pass), "{text}");
}

#[test]
fn a_hang_is_one_failed_case_with_a_backtrace() {
    let (summary, text) = summary(&Options { timeout: Duration::from_secs(1), ..options("hang", &["add/f32/scalar*", "memory/zero-bytes"]) });
    let bad: Vec<_> = summary.reports[0].bad().collect();
    assert!(!bad.is_empty() && bad.iter().all(|j| j.result.failures[0].check == Check::Timeout), "{text}");
}

#[test]
fn a_required_cell_that_is_not_offered_fails_and_an_optional_one_does_not() {
    let optional = Options { profiles: vec!["fft".into()], ..options("unoffered", &["add/f32/*", "mul/f32/*"]) };
    let (optional, text) = summary(&optional);
    assert!(optional.passed() && optional.reports[0].totals.unsupported > 0, "{text}");
    let required = Options { profiles: vec!["core".into()], ..options("unoffered", &["add/f32/*", "mul/f32/*"]) };
    let (required, text) = summary(&required);
    assert_eq!(required.exit_code(), 1, "{text}");
    let bad: Vec<_> = required.reports[0].bad().map(|j| (j.result.id.as_str(), j.result.failures[0].check)).collect();
    assert_eq!(bad, [("profile/core/add/f32", Check::Required)], "{text}");
}

#[test]
fn cells_that_no_profile_requires_can_be_left_out() {
    let all = options("", &["add/f32/*", "add/u8/*", "memory/*"]);
    let mut list = Vec::new();
    flagos_conformance::list(&Options { profiles: vec!["core".into()], required_only: true, ..all }, &mut list).unwrap();
    let list = String::from_utf8(list).unwrap();
    assert!(list.lines().count() > 5 && list.lines().all(|l| l.contains(" add/f32/")), "{list}");
}

#[test]
fn without_a_device_there_is_nothing_to_test() {
    let (summary, text) = summary(&options("absent", &["memory/copy"]));
    assert_eq!(summary.exit_code(), 77, "{text}");
    assert_eq!(summary.left_out.len(), 1);
}

#[test]
fn wrong_usage_is_an_error() {
    for wrong in [
        Options { profiles: vec!["cor".into()], ..options("", &[]) },
        Options { required_only: true, ..options("", &[]) },
        Options { tier: Tier::Spot, claims: Some(std::env::temp_dir()), ..options("", &["add/f32/*"]) },
        Options { profiles: vec!["fft".into()], required_only: true, ..options("", &["add/*"]) },
        options("", &["no/such/*"]),
        Options { targets: vec![Target::Embedded("nobody".into())], ..options("", &[]) },
        Options { json: Some("/proc/no/such".into()), ..options("", &["memory/copy"]) },
    ] {
        assert!(run(&wrong, &mut Vec::new()).is_err());
    }
}

#[test]
fn claims_and_reports_are_written_and_the_host_reads_them() {
    let folder = std::env::temp_dir().join(format!("flagos-conformance-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let at = |name: &str| Some(folder.join(name));
    let options = Options {
        json: at("r.json"),
        junit: at("r.xml"),
        html: at("r.html"),
        claims: Some(folder.join("claims")),
        ..options("last-element", &["add/f32/*", "memory/copy"])
    };
    let (_, text) = summary(&options);
    let claims = flagos_runtime::claims::Claim::read_all(&folder.join("claims"));
    assert_eq!(claims.len(), 1, "{text}");
    assert_eq!(claims[0].cells.get("add/f32"), Some(&flagos_runtime::claims::Cell::Fail), "{text}");
    assert!(claims[0].covers("test", "definition"));
    for name in ["r.json", "r.xml", "r.html"] {
        assert!(std::fs::read_to_string(folder.join(name)).unwrap().contains("add/f32"), "{name}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
