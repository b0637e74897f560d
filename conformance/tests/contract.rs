//! The contract's requirements name cases and checks of the suite: they exist.

use flagos_conformance::check::Check;
use flagos_conformance::{Options, list};
use flagos_runtime::discover::glob;

#[test]
fn every_case_and_check_the_contract_names_is_in_the_suite() {
    let contract = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../backend-api/README.md")).unwrap();
    let mut cases = Vec::new();
    list(&Options::default(), &mut cases).unwrap();
    let cases = String::from_utf8(cases).unwrap();
    let ids: Vec<&str> = cases.lines().filter_map(|l| l.split_whitespace().nth(1)).collect();
    let requirements: Vec<&str> = contract.lines().filter(|l| l.starts_with("| BE-")).collect();
    assert!(requirements.len() >= 30, "{} requirements", requirements.len());
    for line in requirements {
        let checked = line.trim_end_matches(" |").rsplit(" | ").next().unwrap_or("");
        assert!(!checked.is_empty(), "{line}");
        for named in checked.split('`').skip(1).step_by(2).filter(|n| !n.starts_with("cargo ")) {
            let found = if named.contains('/') { ids.iter().any(|id| glob(named, id)) } else { Check::ALL.iter().any(|c| c.id() == named) };
            assert!(found, "'{named}' is no case and no check of the suite: {line}");
        }
    }
}
