//! Templates: a new operator, a new backend.

use clap::Subcommand;

use crate::tool::{Outcome, files, root, write_new};

/// What to make.
#[derive(Subcommand)]
pub enum What {
    /// A definition in a file of its own under ops/catalog/src, with the next free id.
    Op {
        /// ATen's name where there is one.
        name: String,
    },
    /// A backend crate under backends/, copied from the template backends/null.
    Backend {
        /// Lower case, digits, hyphens.
        name: String,
    },
}

/// Makes it.
pub fn run(what: &What) -> Outcome {
    match what {
        What::Op { name } => operator(name),
        What::Backend { name } => backend(name),
    }
}

fn check_name(name: &str, extra: char) -> Outcome {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == extra;
    if name.is_empty() || !name.chars().all(fits) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(format!("'{name}' is no name: lower-case letters, digits and '{extra}', starting with a letter"));
    }
    Ok(())
}

fn operator(name: &str) -> Outcome {
    check_name(name, '_')?;
    let folder = root().join("ops/catalog/src");
    let path = folder.join(format!("{name}.rs"));
    if path.exists() {
        return Err(format!("{} exists already", path.display()));
    }
    let next = flagos_catalog::operators().iter().map(|o| o.id).max().unwrap_or(0) + 10;
    let text = TEMPLATE.replace("NAME_UPPER", &name.to_uppercase()).replace("NAME", name).replace("ID", &next.to_string());
    write_new(&path, text.as_bytes())?;
    println!("wrote {}\nadd `pub mod {name};` and `{name}::OPERATORS` to ops/catalog/src/lib.rs, then a kernel; `cargo test -p flagos-catalog` judges it", path.display());
    Ok(())
}

fn backend(name: &str) -> Outcome {
    check_name(name, '-')?;
    let (from, to) = (root().join("backends/null"), root().join("backends").join(name));
    if to.exists() {
        return Err(format!("{} exists already", to.display()));
    }
    let snake = name.replace('-', "_");
    let camel: String = name.split('-').map(|w| w[..1].to_uppercase() + &w[1..]).collect();
    for file in files(&from) {
        let relative = file.strip_prefix(&from).unwrap_or(&file).to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let text = text.replace("flagos-backend-null", &format!("flagos-backend-{name}")).replace("flagos_backend_null", &format!("flagos_backend_{snake}"));
        let text = text.replace("backends/null", &format!("backends/{name}")).replace("\"null\"", &format!("\"{name}\"")).replace("Null", &camel);
        write_new(&to.join(relative.replace("null", &snake)), text.as_bytes())?;
    }
    println!("wrote {}\nadd \"backends/{name}\" to the workspace's members and a line to BACKENDS in scripts/xtask/src/stage.rs; its README says what to fill in", to.display());
    Ok(())
}

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
