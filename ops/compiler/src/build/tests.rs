//! The builder's own tests: shapes and types of what it makes.

use super::*;
use crate::build;

fn ops(block: &Block) -> Vec<String> {
    block.ops.iter().flat_map(|op| core::iter::once(format!("{:?}", op.kind)).chain(op.regions.iter().flat_map(ops))).collect()
}

#[test]
fn scalars_and_unit_axes_are_repeated_and_integers_widened() {
    let p = kernel("k_test", |k| {
        let (x, n) = (k.pointer(Elem::F32), k.i64());
        let (row, column) = (k.arange(4).expand(1), k.arange(8).expand(0));
        let at = row * n + column;
        assert_eq!((at.shape(), at.elem()), (vec![4, 8], Elem::I64));
        let v = (x + at).load_masked(column.lt(5), -1.0);
        assert_eq!(v.ty(), Type::tile(&[4, 8], Elem::F32));
        let total = (v * 2.0 - v.max(1).expand(1)).sum(0).sum(0);
        assert_eq!(total.ty(), Type::scalar(Elem::F32));
        (x + at).store(total.splat(&[4, 8]));
    });
    let f = p.function("k_test").unwrap();
    assert_eq!((f.body.args.len(), f.facts.len()), (2, 2));
    assert_eq!(f.body.ops.last().unwrap().kind, OpKind::Return);
    let defined: Vec<Value> = f.body.args.iter().copied().chain(f.body.ops.iter().flat_map(|o| o.results.clone())).collect();
    assert!(f.body.ops.iter().flat_map(|o| &o.operands).all(|v| defined.contains(v)));
}

#[test]
fn control_flow_passes_values_on() {
    let p = kernel("k_test", |k| {
        let (x, n) = (k.pointer(Elem::I32), k.i32());
        let [sum, product] = k.fold(k.int(Elem::I32, 0), n, k.int(Elem::I32, 1), [k.int(Elem::I32, 0), k.int(Elem::I32, 1)], |i, [s, p]| [s + i, p * i]);
        let [least] = k.choose(sum.lt(product), || [sum], || [product]);
        let [found] = k.repeat([least], |[v]| v.gt(10), |[v]| [v >> 1i64]);
        k.when(found.gt(0), || x.store(found));
    });
    let names = ops(&p.functions[0].body).join(" ");
    for wanted in ["For", "If", "While", "Condition", "Store", "Yield"] {
        assert!(names.contains(wanted), "{wanted} in {names}");
    }
    let last = &p.functions[0].body.ops[p.functions[0].body.ops.len() - 2];
    assert_eq!((&last.kind, last.regions.len(), last.regions[1].ops.len()), (&OpKind::If, 2, 0));
}

#[test]
fn several_tiles_reduce_together() {
    kernel("k_test", |k| {
        let (v, i) = (k.full(&[16, 4], Elem::F64, 2.0), k.arange(4).expand(0).broadcast(&[16, 4]));
        let [best, at] = build::reduce([v, i], 1, |[a, i], [b, j]| [b.gt(a).select(b, a), b.gt(a).select(j, i)]);
        assert_eq!((best.ty(), at.ty()), (Type::tile(&[16], Elem::F64), Type::tile(&[16], Elem::I32)));
        assert_eq!(v.cumsum(0, true).ty(), v.ty());
        assert_eq!(v.trans(&[1, 0]).dot(v, k.zeros(&[4, 4], Elem::F64)).shape(), [4, 4]);
    });
}

#[test]
#[should_panic(expected = "meet")]
fn misfits_are_refused() {
    kernel("k_test", |k| {
        let _ = k.zeros(&[4], Elem::F32) + k.zeros(&[4], Elem::F64);
    });
}
