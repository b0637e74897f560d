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
        let program = case.program();
        let text = program.to_string();
        let again = parse(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", case.name));
        assert_eq!(again.to_string(), text, "{}", case.name);
        let mut args = case.args.clone();
        interpret::run(&again, &case.entry, case.grid, &mut args).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        case.check(&args).unwrap_or_else(|e| panic!("{e}"));
    }
}
