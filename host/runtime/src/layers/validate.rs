//! The `validate` layer: operands of one launch must not overlap where the operator forbids it, and must be aligned.

use std::sync::Arc;

use flagos_backend_api::{Error, Result, properties};

use super::Layer;
use crate::plan::{Operand, Plan};
use crate::work::Span;

pub(super) struct Validate;

impl Validate {
    pub(super) fn compose(_: &str) -> Result<Box<dyn Layer>> {
        Ok(Box::new(Validate))
    }
}

/// First and one-past-last byte within the buffer.
fn range(offset: u64, span: &Span) -> (i128, i128) {
    (i128::from(offset) + i128::from(span.low), i128::from(offset) + i128::from(span.high))
}

impl Layer for Validate {
    fn before_launch(&self, plan: &Plan, operands: &[Operand]) -> Result<()> {
        let spans = plan.spans();
        for (w, (out, out_span)) in operands.iter().zip(spans).enumerate().filter(|(_, (_, s))| s.writes) {
            let Some((out_buffer, out_offset)) = out else { continue };
            for (r, (other, span)) in operands.iter().zip(spans).enumerate() {
                let Some((buffer, offset)) = other else { continue };
                let (a, b) = (range(*out_offset, out_span), range(*offset, span));
                let overlap = a.0 < b.1 && b.0 < a.1;
                if r == w || !Arc::ptr_eq(&buffer.0, &out_buffer.0) || !overlap || (span.writes && r > w) {
                    continue;
                }
                let same = a == b && !span.writes && plan.properties() & properties::IN_PLACE != 0;
                if !same {
                    return Err(Error::invalid(format!(
                        "{}: operand {w} (written, bytes {}..{}) overlaps operand {r} (bytes {}..{}) of the same buffer; give them separate memory",
                        plan.operator(),
                        a.0,
                        a.1,
                        b.0,
                        b.1
                    ))
                    .at(w as u32));
                }
            }
        }
        Ok(())
    }
}
