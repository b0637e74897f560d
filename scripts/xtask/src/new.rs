//! Templates: a new operator, a new backend.

use std::path::Path;

use clap::Subcommand;

use crate::tool::{Outcome, capture, command, files, root, write_new};

/// What to make.
#[derive(Subcommand)]
pub enum What {
    /// A definition in a file of its own under ops/catalog/src, with the next free id.
    Op {
        /// ATen's name where there is one.
        name: String,
    },
    /// A backend crate under backends/ with what is left to fill in; backends/acme is one filled in.
    Backend {
        /// Lower case, digits, hyphens.
        name: String,
    },
}

/// Makes it.
pub fn run(what: &What) -> Outcome {
    match what {
        What::Op { name } => operator(&root(), name),
        What::Backend { name } => backend(&root(), name),
    }
}

fn check_name(name: &str, extra: char) -> Outcome {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == extra;
    if name.is_empty() || !name.chars().all(fits) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(format!("'{name}' is no name: lower-case letters, digits and '{extra}', starting with a letter"));
    }
    Ok(())
}

/// Camel case: `my-chip` is `MyChip`.
fn camel(name: &str) -> String {
    name.split('-').filter_map(|w| Some(w.get(..1)?.to_uppercase() + w.get(1..)?)).collect()
}

/// Changes a file of the repository in one place; says what to do by hand where the place is not found.
fn insert(path: &Path, before: &str, text: &str) -> Outcome {
    let old = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let at = old.find(before).ok_or_else(|| format!("{}: '{}' is not there; add this by hand: {}", path.display(), before.trim(), text.trim()))?;
    write_new(path, (old[..at].to_owned() + text + &old[at..]).as_bytes())
}

fn operator(root: &Path, name: &str) -> Outcome {
    check_name(name, '_')?;
    let path = root.join("ops/catalog/src").join(format!("{name}.rs"));
    if path.exists() || flagos_catalog::find(name).is_some() {
        return Err(format!("the operator or family '{name}' exists already; `flagos ops show {name}` describes an operator"));
    }
    let next = flagos_catalog::operators().iter().map(|o| o.id).max().unwrap_or(0) + 10;
    let text = TEMPLATE.replace("NAME_UPPER", &name.to_uppercase()).replace("NAME", name).replace("ID", &next.to_string());
    write_new(&path, text.as_bytes())?;
    let lib = root.join("ops/catalog/src/lib.rs");
    let list = std::fs::read_to_string(&lib).map_err(|e| format!("{}: {e}", lib.display()))?;
    let module = format!("pub mod {name};\n");
    // Modules are in alphabetical order; families in that of their making.
    let later = list.split_inclusive('\n').find(|l| l.starts_with("pub mod ") && **l > *module).unwrap_or("pub mod sum;\n");
    insert(&lib, later, &module)?;
    insert(&lib, FAMILIES_END, &format!("    {name}::OPERATORS,\n"))?;
    println!("wrote {} and its lines in {}\nwrite its definition, then a portable kernel in ops/kernels/src; `cargo xtask codegen` writes what follows from it", path.display(), lib.display());
    println!("`cargo test -p flagos-catalog` judges the definition, `cargo flagos conformance --case '{name}/*'` what runs it");
    Ok(())
}

/// What follows the families of the catalogue.
const FAMILIES_END: &str = "];\n\nstruct Registry";

fn backend(root: &Path, name: &str) -> Outcome {
    check_name(name, '-')?;
    if name.ends_with('-') || name.contains("--") {
        return Err(format!("'{name}' is no name: a letter or digit stands on both sides of a hyphen"));
    }
    let (from, to) = (root.join("scripts/xtask/template/backend"), root.join("backends").join(name));
    if to.exists() {
        return Err(format!("{} exists already; choose another name", to.display()));
    }
    let snake = name.replace('-', "_");
    // Exceptions for what is left to fill in hold for half a year.
    let (_, day) = capture(command("date").args(["-d", "+180 days", "+%F"]))?;
    for file in files(&from) {
        let relative = file.strip_prefix(&from).unwrap_or(&file).to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let text = text.replace("flagos_backend_acme", &format!("flagos_backend_{snake}")).replace("acme.json", &format!("{snake}.json"));
        let text = text.replace("acme", name).replace("Acme", &camel(name)).replace("EXPIRES", day.trim()).replace("EXAMPLE", "acme");
        write_new(&to.join(relative.replace("acme", &snake)), text.as_bytes())?;
    }
    let line = format!(
        "    Backend {{ package: Some(\"flagos-backend-{name}\"), folder: \"{name}\", library: \"libflagos_backend_{snake}.so\", manifest: \"{snake}.json\", rank: 70, example: false }},\n"
    );
    insert(&root.join("scripts/xtask/src/stage.rs"), STAGED_BEFORE, &line)?;
    println!("wrote {} and its line in scripts/xtask/src/stage.rs\n`cargo flagos conformance --backend {name}` says what is left to fill in; its README says in which order", to.display());
    Ok(())
}

/// The line of the staged backends before which a new one is put.
const STAGED_BEFORE: &str = "    Backend { package: Some(\"flagos-backend-null\")";

const TEMPLATE: &str = r#"//! NAME.

use flagos_backend_api::Result;

use crate::dtypes::FLOATING;
use crate::shape::{flops_per_element, no_check, same_as_first};
use crate::{Array, Call, Cases, Fill, Layout, Numerics, Operand, Operator, Reference, TensorCase, TypeRule};

const T: TypeRule = TypeRule::Same('T', FLOATING);

/// `NAME`.
pub const NAME_UPPER: &Operator = &Operator {
    name: "NAME",
    id: ID,
    revision: 1,
    family: "NAME",
    aten: &["NAME"],
    onnx: "",
    inputs: &[Operand::new("x", T, "any shape")],
    outputs: &[Operand::new("y", T, "the shape of x")],
    attributes: &[],
    infer: same_as_first,
    check: no_check,
    in_place: true,
    numerics: Numerics::Exact,
    special: "bits are kept",
    cases,
    reference,
    flops: flops_per_element,
    doc: "y = x.",
};

/// The family's operators.
pub const OPERATORS: &[&Operator] = &[NAME_UPPER];

fn cases(c: &mut Cases) {
    c.add("flat", vec![TensorCase::new(&[257], Layout::Contiguous, Fill::Normal)], &[]);
}

fn reference(_: &Call, x: &[Array]) -> Result<Vec<Reference>> {
    Ok(vec![Reference::exact(x[0].clone())])
}
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool::{cargo, target};

    #[test]
    fn what_the_templates_yield_compiles_without_a_warning() {
        // Always the same place, so that what was checked before need not be again.
        let (own, copy) = (root(), target().join("new/workspace"));
        let _ = std::fs::remove_dir_all(&copy);
        let mut taken: Vec<_> = ["backend-api", "ops/catalog", "scripts/xtask"].iter().flat_map(|f| files(&own.join(f))).collect();
        taken.push(own.join("Cargo.lock"));
        for file in taken {
            write_new(&copy.join(file.strip_prefix(&own).unwrap()), &std::fs::read(&file).unwrap()).unwrap();
        }
        let workspace = std::fs::read_to_string(own.join("Cargo.toml")).unwrap();
        let few = |l: &str| if l.starts_with("members = ") { "members = [\"backend-api\", \"ops/catalog\", \"backends/*\"]".to_owned() } else { l.to_owned() };
        write_new(&copy.join("Cargo.toml"), workspace.lines().map(few).collect::<Vec<_>>().join("\n").as_bytes()).unwrap();
        operator(&copy, "frobnicate").unwrap();
        backend(&copy, "foo-bar2").unwrap();
        assert!(backend(&copy, "foo-bar2").unwrap_err().contains("exists already"));
        let staged = std::fs::read_to_string(copy.join("scripts/xtask/src/stage.rs")).unwrap();
        assert!(staged.contains("library: \"libflagos_backend_foo_bar2.so\", manifest: \"foo_bar2.json\""));
        let mut check = cargo();
        check.current_dir(&copy).env("CARGO_TARGET_DIR", target().join("new/target")).env("RUSTFLAGS", "-Dwarnings").args(["check", "--quiet", "--offline", "--workspace"]);
        let (code, text) = capture(&mut check).unwrap();
        assert_eq!(code, 0, "{text}");
    }

    #[test]
    fn the_example_is_the_template_filled_in() {
        let (template, example) = (root().join("scripts/xtask/template/backend/src"), root().join("backends/acme/src"));
        let mut compared = 0;
        for file in files(&template) {
            let name = file.file_name().unwrap();
            let (left, filled) = (std::fs::read_to_string(&file).unwrap(), std::fs::read_to_string(example.join(name)).unwrap());
            // Unused parameters have names of their own kind.
            let plain = |text: &str| text.replace("_stream: ", "stream: ");
            let filled = plain(&filled);
            let signature = |l: &&str| ["    fn ", "    unsafe fn ", "    type ", "impl "].iter().any(|s| l.starts_with(s));
            for line in left.lines().filter(signature) {
                assert!(filled.lines().any(|l| l == plain(line)), "{}: backends/acme has no line '{line}'", name.display());
                compared += 1;
            }
        }
        assert!(compared > 30, "{compared} lines were compared");
    }

    #[test]
    fn names_that_do_not_fit_are_named() {
        for bad in ["", "Acme", "a b", "1a", "a--b", "a-", "a/b"] {
            assert!(backend(Path::new("/nonexistent"), bad).unwrap_err().contains("is no name"), "{bad}");
        }
        assert!(operator(Path::new("/nonexistent"), "softmax").unwrap_err().contains("exists already"));
        assert_eq!(camel("my-chip2"), "MyChip2");
    }
}
