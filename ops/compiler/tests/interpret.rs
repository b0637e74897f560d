//! The reference interpreter against NumPy, on every kernel of the corpus; and each text through the printer and back.

mod corpus;

use flagos_compiler::tile::{interpret, parse::parse};

#[test]
fn every_kernel_of_the_corpus_gives_what_numpy_expects() {
    let cases = corpus::cases();
    assert!(cases.len() >= 200, "{} cases", cases.len());
    let mut failures = Vec::new();
    for case in cases {
        let mut args = case.args.clone();
        let result = parse(&case.text).and_then(|p| interpret::run(&p, &case.entry, case.grid, &mut args));
        if let Err(e) = result {
            failures.push(format!("{}: {e}", case.name));
        } else if let Err(e) = case.check(&args) {
            failures.push(e);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_text_of_the_corpus_survives_the_printer() {
    for case in corpus::cases() {
        let program = case.program().unwrap();
        let text = program.to_string();
        let again = parse(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", case.name));
        assert_eq!(again.to_string(), text, "{}", case.name);
        let mut args = case.args.clone();
        interpret::run(&again, &case.entry, case.grid, &mut args).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        case.check(&args).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn texts_of_older_and_newer_triton_mean_the_same() {
    let mut count = 0;
    let cases = corpus::cases();
    for version in ["3.4", "3.9"] {
        for file in std::fs::read_dir(format!("{}/tests/corpus/versions/{version}", env!("CARGO_MANIFEST_DIR"))).unwrap() {
            let path = file.unwrap().path();
            let case = cases.iter().find(|c| path.file_stem().is_some_and(|s| *s == *c.name)).expect("a case of this name");
            let program = parse(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let mut args = case.args.clone();
            interpret::run(&program, &case.entry, case.grid, &mut args).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            case.check(&args).unwrap_or_else(|e| panic!("Triton {version}: {e}"));
            count += 1;
        }
    }
    assert!(count >= 50, "{count} texts");
}
