//! The list of mutations and the table of faults name the same faults and checks; an unknown fault is refused.

mod support;

use std::collections::BTreeMap;

use flagos_backend_api::{Code, DeviceProbe};
use flagos_backend_null::fault::TABLE;
use support::{Backend, call, sized};

#[test]
fn every_fault_has_its_mutation() {
    let text = include_str!("../mutations.toml");
    let file: BTreeMap<String, Vec<BTreeMap<String, String>>> = toml::from_str(text).unwrap();
    let listed: Vec<(&str, &str)> = file["mutation"].iter().map(|m| (m["fault"].as_str(), m["check"].as_str())).collect();
    let planted: Vec<(&str, &str)> = TABLE.iter().map(|r| (r.name, r.check)).collect();
    assert_eq!(listed, planted);
    let names: std::collections::HashSet<&str> = TABLE.iter().map(|r| r.name).collect();
    assert_eq!(names.len(), TABLE.len(), "a name is used twice");
    assert!(file["mutation"].iter().all(|m| !m["cases"].is_empty()));
}

#[test]
fn an_unknown_fault_is_no_silent_pass() {
    // SAFETY: the other test of this process does not read the environment.
    unsafe { std::env::set_var("FLAGOS_NULL_FAULT", "no-such-fault") };
    let b = Backend::open();
    let mut count = 0;
    let refused = call!(b.table, probe, &mut sized!(DeviceProbe), 1, &mut count).unwrap_err();
    assert_eq!(refused.code, Code::INVALID_ARGUMENT);
    assert!(refused.message.contains("no-such-fault") && refused.message.contains("wrong-last-element"), "{refused}");
}
