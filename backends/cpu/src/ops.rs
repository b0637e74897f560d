//! Which operators this backend offers: one factory per registry id, contributed by each family's file.

use std::sync::LazyLock;

use flagos_backend_api::{Error, Result};
use flagos_catalog::{Call, Operator};

use crate::kernel::{Factory, Kernel};
use crate::target::Target;

/// Collects factories.
#[derive(Default)]
pub struct Registry {
    by_id: Vec<Option<Factory>>,
}

impl Registry {
    /// Offers an operator.
    pub fn add(&mut self, operator: &Operator, factory: Factory) {
        let id = operator.id as usize;
        if self.by_id.len() <= id {
            self.by_id.resize(id + 1, None);
        }
        self.by_id[id] = Some(factory);
    }
}

/// Families, each with its own file.
const FAMILIES: &[fn(&mut Registry)] = &[
    crate::attention::add,
    crate::conv::add,
    crate::copy::add,
    crate::create::add,
    crate::index::add,
    crate::matmul::add,
    crate::norm::add,
    crate::random::add,
    crate::reduce::add,
    crate::reduce_arg::add,
    crate::rows::add,
    crate::scan::add,
    crate::select::add,
    crate::softmax::add,
    crate::sort::add,
];

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let mut registry = Registry::default();
    FAMILIES.iter().for_each(|add| add(&mut registry));
    registry
});

/// Whether an operator is offered at all.
pub fn offers(id: u32) -> bool {
    REGISTRY.by_id.get(id as usize).is_some_and(Option::is_some)
}

/// Plans a checked call.
pub fn plan(call: &Call, target: &Target) -> Result<Box<dyn Kernel>> {
    match REGISTRY.by_id.get(call.operator.id as usize).copied().flatten() {
        Some(factory) => factory(call, target),
        None => Err(Error::unimplemented(format!("{} has no kernel here", call.operator.name))),
    }
}
