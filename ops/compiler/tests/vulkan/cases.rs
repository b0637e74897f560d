//! The cases all formats share.

use flagos_compiler::emit::emit;
use flagos_compiler::run::Arg;
use flagos_compiler::thread::{Kernel, math};
use flagos_compiler::{Compiled, Elem};

use crate::device::{device, launch, validate};
use crate::shared::{Case, Runner, atomics, control, elementwise, judge, memory};
use crate::support::Backend;

struct Vulkan<'a>(&'a Backend);

impl Runner for Vulkan<'_> {
    fn run(&self, compiled: &Compiled, _: &Kernel, grid: [u32; 3], args: &mut [Arg]) -> Result<(), String> {
        launch(self.0, compiled, grid, args);
        Ok(())
    }
}

const THREADS: u32 = 64;

fn check(cases: impl IntoIterator<Item = Case>) {
    let Some((backend, target)) = device() else { return };
    let mut wrong = Vec::new();
    for case in cases {
        let mut kernel = case.kernel.clone();
        math::expand(&mut kernel, target);
        let compiled = emit(&kernel, target).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        validate(&compiled.code);
        if let Err(e) = judge(&case, &compiled, &Vulkan(backend)) {
            wrong.push(e.lines().next().unwrap_or_default().to_owned());
        }
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn arithmetic_on_every_type() {
    check(Elem::ALL.iter().flat_map(|e| elementwise::arithmetic(THREADS, *e)));
}

#[test]
fn functions_within_two_units() {
    check([Elem::F32, Elem::F64].map(|e| elementwise::functions(THREADS, e, |_| 2)));
}

#[test]
fn conversions_between_all_types() {
    check(Elem::ALL.iter().flat_map(|from| Elem::ALL.iter().filter_map(|to| elementwise::casts(THREADS, *from, *to))));
}

#[test]
fn constants_of_every_type() {
    check(elementwise::literals(THREADS));
}

#[test]
fn control_flow() {
    // One of the cases calls a loop uniform that is so for one thread only.
    check(control::cases(THREADS).into_iter().filter(|c| c.name != "swap").chain(control::cases(1)));
}

#[test]
fn accesses_of_every_width() {
    check(Elem::ALL.iter().flat_map(|e| [1, 2, 4, 8, 16].map(|w| memory::wide(THREADS, *e, w))));
}

#[test]
fn parameters_and_pointers() {
    check([memory::parameters(THREADS), memory::pointers(THREADS), memory::blocks(THREADS)]);
}

#[test]
fn values_exchanged_through_shared_memory_and_shuffles() {
    let Some((_, target)) = device() else { return };
    check(Elem::ALL.iter().map(|e| memory::exchange(THREADS, *e, 64)));
    check(Elem::ALL.iter().map(|e| memory::shuffles(THREADS, target.subgroup, *e)));
}

#[test]
fn atomics_of_every_type() {
    let elems = [Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F16, Elem::BF16, Elem::F32, Elem::F64];
    check(elems.iter().flat_map(|e| [atomics::update(THREADS, *e, false), atomics::update(THREADS, *e, true), atomics::swap(THREADS, *e)]));
}
