//! Products on matrix units: factors in shared memory, sums in fragments that loops carry.
//!
//! The fragments of a product are shared out among the subgroups in blocks. A sum leaves its fragments only where something else than a
//! product wants its elements: where fragments are open (`Target::opens_fragments`) their registers are those of a layout; elsewhere each
//! subgroup passes them through a patch of shared memory of its own, into registers laid out so that no element changes its subgroup.
//!
//! Where rows of a product are reduced, or the product becomes the left factor of another (`rows.rs`), a subgroup has whole rows: with open
//! fragments nothing of softmax(a·b)·c then leaves the registers of its lanes.

use std::rc::Rc;

use crate::error::Result;
use crate::lower::Lower;
use crate::lower::layout::{Bit, Home, Layout, const_bits, log2};
use crate::lower::node::{Kind, Node, Storage};
use crate::lower::place::number;
use crate::thread::{Effect, FragmentInfo, Inst, Place, Role, Shared, SharedInfo, Stmt, Ty, Val};
use crate::tile::{Block, DotPrecision, Item, Op, OpKind};
use crate::{Elem, MatrixShape};

/// Registers per thread up to which sums are kept in fragments.
const MOST_REGISTERS: u32 = 128;

/// How a product of two axes is shared out.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Plan {
    /// The unit's shape.
    pub shape: MatrixShape,
    /// Fragments of a subgroup: rows, columns.
    pub each: [u32; 2],
    /// Subgroups (log2): rows, columns.
    across: [u32; 2],
    /// Registers of the elements outside fragments.
    pub layout: Layout,
    /// These are the fragments' own.
    open: bool,
}

impl Plan {
    /// Whether left factors are made of registers: a subgroup with whole rows reads each row of them once.
    pub fn left_in_registers(&self) -> bool {
        let held = FragmentInfo { shape: self.shape, role: Role::A }.elements_per_lane();
        self.open && self.across[1] == 0 && self.across[0] > 0 && held > 0
    }
}

/// The elements of a tile in sum fragments, row by row.
#[derive(Clone)]
pub(super) struct Fragments {
    /// Distribution.
    pub plan: Plan,
    /// One fragment each.
    pub values: Vec<Val>,
}

/// A factor in shared memory.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Factor {
    /// The array.
    pub array: Shared,
    /// i32 index of the first element; 0 without.
    pub base: Option<Val>,
    /// Elements between lines.
    pub stride: u32,
    /// Lines are columns.
    pub turned: bool,
}

impl Lower<'_> {
    /// The plan for an m×n product of a depth, if a matrix unit fits.
    /// With `rows`, each subgroup has whole rows if there are enough.
    pub fn unit_plan(&self, shape: &[u32], depth: u32, factors: [Elem; 2], sum: Elem, precision: DotPrecision, rows: bool) -> Option<Plan> {
        let &[m, n] = shape else { return None };
        let width = self.kernel.subgroup;
        let vague = factors[0] == Elem::F32 && precision != DotPrecision::Tf32;
        if self.thread_bits == 0 || width == 0 || width != self.target.subgroup || factors[0] != factors[1] || vague {
            return None;
        }
        let divides = |s: &&MatrixShape| m.is_multiple_of(s.m) && n.is_multiple_of(s.n) && depth.is_multiple_of(s.k);
        let fits = self.target.matrix.iter().filter(|s| s.factor == factors[0] && s.sum == sum).filter(divides);
        let shape = *fits.max_by_key(|s| s.m * s.n * s.k)?;
        let tiles = [m / shape.m, n / shape.n];
        let subgroups = log2(self.kernel.threads / width);
        // As square a block per subgroup as there is.
        let choices = (0..=subgroups).flat_map(|r| (0..=subgroups - r).map(move |c| [r, c]));
        let across = choices.filter(|[r, c]| 1 << r <= tiles[0] && 1 << c <= tiles[1]).min_by_key(|[r, c]| {
            let each = [tiles[0] >> r, tiles[1] >> c];
            (rows && *r < subgroups, each[0] * each[1], each[0] * shape.m + each[1] * shape.n)
        })?;
        let each = [tiles[0] >> across[0], tiles[1] >> across[1]];
        let open = self.opens(&shape);
        let layout = if open { open_layout(&shape, [each[0], each[1]], across) } else { self.unit_layout(&shape, each, across) };
        let room = self.unit_room(&shape, [m, n], depth) <= self.target.shared_bytes;
        (room && layout.regs() <= MOST_REGISTERS).then_some(Plan { shape, each, across, layout, open })
    }

    /// Whether a shape's sums are taken apart and made without shared memory.
    fn opens(&self, shape: &MatrixShape) -> bool {
        self.target.opens_fragments() && FragmentInfo { shape: *shape, role: Role::Sum }.elements_per_lane() > 0
    }

    /// Bytes of shared memory that a product takes.
    pub fn unit_room(&self, shape: &MatrixShape, [m, n]: [u32; 2], depth: u32) -> u32 {
        let factors = (m * stride(depth, shape.factor) + depth * stride(n, shape.factor)) * shape.factor.bytes();
        let patches = if self.opens(shape) { 0 } else { self.kernel.threads / self.kernel.subgroup.max(1) * shape.m * shape.n * shape.sum.bytes() };
        factors + patches + 64
    }

    /// Registers so that a subgroup holds what its fragments hold: within a fragment a few neighbours of a row in a thread, the rest over the
    /// lanes as far as they reach.
    fn unit_layout(&self, shape: &MatrixShape, each: [u32; 2], across: [u32; 2]) -> Layout {
        let [rows, columns, down, right] = [shape.m, shape.n, each[0], each[1]].map(|n| log2(n) as usize);
        let lanes = log2(self.kernel.subgroup) as usize;
        let near = (rows + columns).saturating_sub(lanes).min(2).min(columns);
        let (mut reg, mut lane) = (near as u8, 0u8);
        let mut spread = |_: usize| {
            if usize::from(lane) < lanes {
                lane += 1;
                Home::Thread(lane - 1)
            } else {
                reg += 1;
                Home::Reg(reg - 1)
            }
        };
        let mut inner: Vec<Home> = (0..near).map(|b| Home::Reg(b as u8)).collect();
        inner.extend((near..columns).map(&mut spread));
        let tall: Vec<Home> = (0..rows).map(&mut spread).collect();
        let first = inner.iter().chain(&tall).filter(|h| matches!(h, Home::Reg(_))).count() as u8;
        let groups = |n: u32, from: u32| (0..n).map(move |b| Home::Thread((lanes as u32 + from + b) as u8));
        let mut homes = inner;
        homes.extend((0..right).map(|b| Home::Reg(first + b as u8)));
        homes.extend(groups(across[1], 0));
        homes.extend(tall);
        homes.extend((0..down).map(|b| Home::Reg(first + (right + b) as u8)));
        homes.extend(groups(across[0], across[1]));
        Layout { homes }
    }

    /// The plan of a product in the program, from its types.
    pub fn plan_of(&self, op: &Op) -> Option<Plan> {
        let &[a, _, c, ..] = op.operands.as_slice() else { return None };
        let (a, c) = (self.function.ty(a), self.function.ty(c));
        match &op.kind {
            OpKind::Dot { precision } => {
                let b = self.function.ty(op.operands[1]);
                let sum = super::dot::sum_elem(a.elem()?, c.elem()?);
                self.unit_plan(c.shape(), *a.shape().last()?, [a.elem()?, b.elem()?], sum, *precision, self.rows.contains(op.results.first()?))
            }
            OpKind::DotScaled { formats, scales, pack_k } => {
                let depth = a.shape().last()? * if formats[0] == "e2m1" && pack_k[0] { 2 } else { 1 };
                let elem = self.scaled_elem([0, 1].map(|i| (formats[i].as_str(), scales[i])));
                self.unit_plan(c.shape(), depth, [elem; 2], Elem::F32, DotPrecision::Ieee, false)
            }
            _ => None,
        }
    }

    /// The plan for what a loop carries as a sum: its only use is a product, which it becomes.
    pub fn carried_plan(&self, region: &Block, i: usize) -> Option<Plan> {
        let last = region.ops.last()?.operands.get(i)?;
        let arg = region.args[i + 1];
        let def = region.ops.iter().find(|o| o.results.contains(last))?;
        let mut used = 0;
        region.ops.iter().for_each(|o| super::ops::uses(o, &mut |v| used += u32::from(v == arg)));
        let product = matches!(def.kind, OpKind::Dot { .. } | OpKind::DotScaled { .. }) && def.operands.get(2) == Some(&arg) && used == 1;
        let plan = if product { self.plan_of(def)? } else { return None };
        (self.function.ty(arg).elem() == Some(plan.shape.sum)).then_some(plan)
    }

    /// A kind of fragment.
    pub fn fragment_ty(&mut self, shape: MatrixShape, role: Role) -> Ty {
        let info = FragmentInfo { shape, role };
        let found = self.kernel.fragments.iter().position(|f| *f == info);
        let index = found.unwrap_or_else(|| {
            self.kernel.fragments.push(info);
            self.kernel.fragments.len() - 1
        });
        Ty::Fragment(index as u32)
    }

    /// A tile that is in fragments.
    pub fn in_fragments(&mut self, shape: &[u32], fragments: Fragments) -> Rc<Node> {
        let item = Item::Elem(fragments.plan.shape.sum);
        let node = self.node(shape, item, Kind::Stored, vec![super::facts::Axis::NONE; shape.len()]);
        self.fragments.insert(node.id, fragments);
        node
    }

    /// a·b + c on a matrix unit.
    pub fn dot_in_unit(&mut self, plan: Plan, a: &Rc<Node>, b: &Rc<Node>, c: &Rc<Node>) -> Result<Rc<Node>> {
        // The sum leaves other fragments, if it must, before the factors take their place.
        let sums = self.sum_fragments(&plan, c)?;
        let left = self.left_fragments(&plan, a)?;
        let factors = self.factors([Some(a).filter(|_| left.is_none()), Some(b)], [None, None], plan.shape.factor)?;
        self.multiply_in_unit(plan, factors, left.as_deref(), a.shape[1], sums, &c.shape.clone())
    }

    /// A left factor in fragments made of registers, row by row; none where it goes through shared memory.
    pub fn left_fragments(&mut self, plan: &Plan, node: &Rc<Node>) -> Result<Option<Vec<Val>>> {
        let shape = plan.shape;
        if !plan.left_in_registers() || node.item.elem() != Some(shape.factor) {
            return Ok(None);
        }
        if let Some(made) = self.lefts.get(&node.id) {
            return Ok(Some(made.clone()));
        }
        let steps = node.shape[1] / shape.k;
        // Two sums' worth of columns are one factor's depth.
        let layout = open_layout(&MatrixShape { n: 8, ..shape }, [plan.each[0], node.shape[1] / 8], plan.across);
        if layout.regs() > MOST_REGISTERS {
            return Ok(None);
        }
        self.prepare(node, &self.wants(&layout, 0))?;
        let ty = self.fragment_ty(shape, Role::A);
        let held = FragmentInfo { shape, role: Role::A }.elements_per_lane();
        let mut out = Vec::new();
        for fragment in 0..plan.each[0] * steps {
            out.push(self.fragment_of(ty, node, &layout, fragment * held, held)?);
        }
        Ok(Some(out))
    }

    /// A fragment of `count` registers from one on.
    fn fragment_of(&mut self, ty: Ty, node: &Rc<Node>, layout: &Layout, first: u32, count: u32) -> Result<Val> {
        let values = (first..first + count).map(|n| self.eval(node, &layout.pos(&const_bits(n, layout.reg_bits())))).collect::<Result<Vec<_>>>()?;
        Ok(self.inst(ty, Inst::FragmentOf(values)))
    }

    /// Sums and products of factors in shared memory; of a left factor elsewhere its fragments.
    pub fn multiply_in_unit(
        &mut self, plan: Plan, factors: [Option<Factor>; 2], left: Option<&[Val]>, depth: u32, mut sums: Vec<Val>, extents: &[u32],
    ) -> Result<Rc<Node>> {
        let shape = plan.shape;
        let starts = self.block_start(&plan);
        let tys = [Role::A, Role::B, Role::Sum].map(|r| self.fragment_ty(shape, r));
        let side = [shape.m, shape.n];
        // Of factor i, the fragments at a depth.
        let load = |l: &mut Self, i: usize, k: u32| -> Vec<Val> {
            let Some(f) = factors[i] else {
                let (steps, step) = ((depth / shape.k) as usize, (k / shape.k) as usize);
                return left.unwrap_or_default().chunks(steps).map(|row| row[step]).collect();
            };
            // Lines of the left factor run along the depth, those of the right one across it.
            let near = (i == 0) != f.turned;
            let vector = 16 / shape.factor.bytes();
            let aligned = f.stride.is_multiple_of(vector) && (if near { shape.k } else { side[i] }).is_multiple_of(vector);
            let by = l.i32(if near { i64::from(f.stride) } else { 1 });
            let first = l.int(crate::tile::Binary::MulI, Elem::I32, starts[i], by);
            let first = match f.base {
                Some(base) => l.add(base, first),
                None => first,
            };
            (0..plan.each[i])
                .map(|n| {
                    let offset = if near { n * side[i] * f.stride + k } else { k * f.stride + n * side[i] };
                    let offset = l.i32(i64::from(offset));
                    let index = l.add(first, offset);
                    l.inst(tys[i], Inst::FragmentLoad { array: f.array, index, stride: f.stride, transposed: f.turned, aligned })
                })
                .collect()
        };
        let mut next = [load(self, 0, 0), load(self, 1, 0)];
        for k in (0..depth).step_by(shape.k as usize) {
            let now = next;
            let later = k + shape.k;
            next = if later < depth { [load(self, 0, later), load(self, 1, later)] } else { [Vec::new(), Vec::new()] };
            for (n, sum) in sums.iter_mut().enumerate() {
                let (i, j) = (n / now[1].len(), n % now[1].len());
                *sum = self.inst(tys[2], Inst::FragmentMulAdd(now[0][i], now[1][j], *sum));
            }
            self.start_later();
        }
        Ok(self.in_fragments(extents, Fragments { plan, values: sums }))
    }

    /// Row and column of the first element of a subgroup's block.
    fn block_start(&mut self, plan: &Plan) -> [Val; 2] {
        let lanes = log2(self.kernel.subgroup) as u8;
        let bits = |from: u8, n: u32, low: u32| {
            let zeros = std::iter::repeat_n(Bit::Zero, low as usize);
            zeros.chain((0..n as u8).map(|b| Bit::Thread(from + b))).collect::<Vec<_>>()
        };
        let columns = bits(lanes, plan.across[1], log2(plan.each[1] * plan.shape.n));
        let rows = bits(lanes + plan.across[1] as u8, plan.across[0], log2(plan.each[0] * plan.shape.m));
        [self.compose(&rows), self.compose(&columns)]
    }

    /// Both factors in shared memory: those that are not staged are put there, rows apart by a few elements more than they have.
    /// What is neither is `None`.
    pub fn factors(&mut self, tiles: [Option<&Rc<Node>>; 2], staged: [Option<Factor>; 2], elem: Elem) -> Result<[Option<Factor>; 2]> {
        let held = self.held.len();
        let (mut out, mut used, mut versions) = (Vec::new(), false, Vec::new());
        for node in tiles.iter().flatten() {
            versions.push((*node, self.settle(node)?));
        }
        for (tile, factor) in tiles.iter().zip(staged) {
            out.push(match tile {
                Some(node) => {
                    let stride = stride(node.shape[1], elem);
                    let (array, before) = self.typed(elem, node.shape[0] * stride)?;
                    self.held.push(array.0);
                    used |= before;
                    Some(Factor { array, base: None, stride, turned: false })
                }
                None => factor,
            });
        }
        self.held.truncate(held);
        if used {
            self.barrier(false);
        }
        let places = tiles.iter().zip(&out).filter(|(t, _)| t.is_some()).filter_map(|(_, f)| *f);
        for ((node, version), Factor { array, stride, .. }) in versions.iter().zip(places.collect::<Vec<_>>()) {
            let columns = log2(node.shape[1]) as usize;
            let group = version.layout.vector_bits(0, columns).min(log2(16 / elem.bytes()) as usize);
            let mask = self.writer(&version.layout);
            self.each(&node.shape, &version.layout, group, &mut |l, regs| {
                let mut values = Vec::new();
                for n in 0..1u32 << group {
                    let mut regs = regs.to_vec();
                    regs[..group].copy_from_slice(&const_bits(n, group));
                    values.push(l.eval_version(node, version, &regs)?);
                }
                let pos = version.layout.pos(regs);
                let (row, column) = (l.compose(&pos[columns..]), l.compose(&pos[..columns]));
                let by = l.i32(i64::from(stride));
                let start = l.int(crate::tile::Binary::MulI, Elem::I32, row, by);
                let index = l.add(start, column);
                l.effect(Effect::Store { place: Place::Shared { array, index }, values, mask });
                Ok(())
            })?;
        }
        if !versions.is_empty() {
            self.barrier(false);
        }
        Ok([out[0], out[1]])
    }

    /// A shared array of an element type; whether others may still be reading it.
    pub fn typed(&mut self, elem: Elem, len: u32) -> Result<(Shared, bool)> {
        let found = (0..self.kernel.shared.len()).find(|i| self.kernel.shared[*i].elem == elem && !self.held.contains(&(*i as u32)));
        let index = found.unwrap_or_else(|| {
            self.kernel.shared.push(SharedInfo { elem, len });
            self.kernel.shared.len() - 1
        });
        self.kernel.shared[index].len = self.kernel.shared[index].len.max(len);
        let (need, have) = (self.kernel.shared_bytes(), self.target.shared_bytes);
        if need > have {
            return Err(self.limit(format!("{need} bytes of shared memory are needed, the target has {have}; use smaller tiles or more threads")));
        }
        Ok((Shared(index as u32), found.is_some() || self.loop_depth > 0))
    }

    /// A patch of shared memory for one fragment of each subgroup, and where this subgroup's begins.
    fn patch(&mut self, shape: &MatrixShape) -> Result<(Shared, Val)> {
        let size = shape.m * shape.n;
        let subgroups = self.kernel.threads / self.kernel.subgroup;
        let (array, used) = self.typed(shape.sum, subgroups * size)?;
        if used {
            self.barrier(false);
        }
        let lanes = log2(self.kernel.subgroup) as u8;
        let zeros = std::iter::repeat_n(Bit::Zero, log2(size) as usize);
        let bits: Vec<Bit> = zeros.chain((0..log2(subgroups) as u8).map(|b| Bit::Thread(lanes + b))).collect();
        Ok((array, self.compose(&bits)))
    }

    /// For each vector of a thread's registers in fragment (i, j): their first number, and their index in the subgroup's patch.
    fn in_patch(&mut self, plan: &Plan, fragment: usize, start: Val) -> Vec<(usize, Val, usize)> {
        let bits = plan.layout.reg_bits();
        let inner = bits - log2(plan.each[0] * plan.each[1]) as usize;
        let columns = log2(plan.shape.n) as usize;
        let rows = log2(plan.shape.m) as usize;
        let tall = plan.layout.homes.len() - rows - (log2(plan.each[0]) + plan.across[0]) as usize;
        let near = plan.layout.vector_bits(0, columns).min(2).min(inner);
        let mut out = Vec::new();
        for n in 0..1u32 << (inner - near) {
            let mut regs = const_bits(n << near, inner);
            regs.extend(const_bits(fragment as u32, bits - inner));
            let pos = plan.layout.pos(&regs);
            let place: Vec<Bit> = pos[..columns].iter().chain(&pos[tall..tall + rows]).copied().collect();
            let within = self.compose(&place);
            out.push((number(&regs), self.add(start, within), 1 << near));
        }
        out
    }

    fn subgroup_barrier(&mut self) {
        self.push(Stmt::Do(Effect::SubgroupBarrier));
    }

    /// A tile as sum fragments of a plan.
    pub fn sum_fragments(&mut self, plan: &Plan, node: &Rc<Node>) -> Result<Vec<Val>> {
        if let Some(f) = self.fragments.get(&node.id).filter(|f| f.plan == *plan) {
            return Ok(f.values.clone());
        }
        let ty = self.fragment_ty(plan.shape, Role::Sum);
        let count = (plan.each[0] * plan.each[1]) as usize;
        if let Kind::Splat(v) = *node.kind()
            && self.constant(v) == Some(0)
        {
            return Ok((0..count).map(|_| self.inst(ty, Inst::FragmentZero)).collect());
        }
        self.prepare(node, &self.wants(&plan.layout, 0))?;
        if plan.open {
            let held = FragmentInfo { shape: plan.shape, role: Role::Sum }.elements_per_lane();
            return (0..count as u32).map(|n| self.fragment_of(ty, node, &plan.layout, n * held, held)).collect();
        }
        let (array, start) = self.patch(&plan.shape)?;
        let mut out = Vec::new();
        for fragment in 0..count {
            for (first, index, near) in self.in_patch(plan, fragment, start) {
                let values = (0..near).map(|n| self.eval(node, &plan.layout.pos(&const_bits((first + n) as u32, plan.layout.reg_bits()))));
                let values = values.collect::<Result<Vec<_>>>()?;
                self.effect(Effect::Store { place: Place::Shared { array, index }, values, mask: None });
            }
            self.subgroup_barrier();
            out.push(self.inst(ty, Inst::FragmentLoad { array, index: start, stride: plan.shape.n, transposed: false, aligned: false }));
            self.subgroup_barrier();
        }
        Ok(out)
    }

    /// Gives a tile in fragments registers as well.
    pub fn out_of_fragments(&mut self, node: &Rc<Node>, fragments: &Fragments) -> Result<()> {
        let plan = &fragments.plan;
        let elem = plan.shape.sum;
        if plan.open {
            let held = FragmentInfo { shape: plan.shape, role: Role::Sum }.elements_per_lane();
            let places: Vec<(Val, u32)> = fragments.values.iter().flat_map(|f| (0..held).map(|i| (*f, i))).collect();
            let values = places.into_iter().map(|(f, i)| self.inst(Ty::Elem(elem), Inst::FragmentGet(f, i))).collect();
            self.keep(node, plan.layout.clone(), Storage::Vals(values));
            return Ok(());
        }
        let (array, start) = self.patch(&plan.shape)?;
        let mut values = vec![start; plan.layout.regs() as usize];
        for (n, fragment) in fragments.values.iter().enumerate() {
            self.effect(Effect::FragmentStore { fragment: *fragment, array, index: start, stride: plan.shape.n });
            self.subgroup_barrier();
            for (first, index, near) in self.in_patch(plan, n, start) {
                let results: Vec<Val> = (0..near).map(|_| self.fresh(Ty::Elem(elem))).collect();
                values[first..first + near].copy_from_slice(&results);
                let inst = Inst::Load { place: Place::Shared { array, index }, mask: None, other: None, volatile: false };
                self.push(Stmt::Let { results, inst });
            }
            self.subgroup_barrier();
        }
        self.keep(node, plan.layout.clone(), Storage::Vals(values));
        Ok(())
    }
}

/// Registers as [`FragmentInfo::held`] numbers them, fragment after fragment along the rows: of a sum, and (as if of n = 8) of a left factor of
/// two-byte elements.
fn open_layout(shape: &MatrixShape, each: [u32; 2], across: [u32; 2]) -> Layout {
    let [down, right] = each.map(|n| log2(n) as u8);
    let tall = log2(shape.m) as u8 - 3;
    let first = 1 + tall;
    let groups = |n: u32, from: u32| (0..n as u8).map(move |b| Home::Thread(5 + from as u8 + b));
    let mut homes = vec![Home::Reg(0), Home::Thread(0), Home::Thread(1)];
    homes.extend((0..right).map(|b| Home::Reg(first + b)));
    homes.extend(groups(across[1], 0));
    homes.extend([2, 3, 4].map(Home::Thread));
    homes.extend((0..tall).map(|b| Home::Reg(1 + b)));
    homes.extend((0..down).map(|b| Home::Reg(first + right + b)));
    homes.extend(groups(across[0], across[1]));
    Layout { homes }
}

/// Elements between rows in shared memory: 16 bytes more than a row, so that rows begin in different banks.
pub(super) fn stride(columns: u32, elem: Elem) -> u32 {
    columns + 16 / elem.bytes()
}
