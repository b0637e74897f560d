//! The case list: catalogue × element types × cases of a tier, and the cases of the ABI, of streams and of memory.

use std::collections::{BTreeSet, HashMap};

use flagos_backend_api::{DType, Error, Result, Tensor};
use flagos_catalog::blas::{self, BlasCase};
use flagos_catalog::fft::{self, FftCase};
use flagos_catalog::{Assignment, Call, Case, Cases, Operator, Tier, assignments, operators};
use flagos_runtime::discover::glob;
use sha2::{Digest, Sha256};

use crate::bench::Bench;
use crate::cell::Cell;
use crate::outcome::Step;

/// How a case runs.
pub enum Run {
    /// An operator on given shapes.
    Operator(&'static Operator, Assignment, Case),
    /// An operator on random shapes, strides, attributes and contents.
    Property(&'static Operator, Assignment),
    /// A BLAS routine.
    Blas(BlasCase),
    /// A Fourier transform.
    Fft(FftCase),
    /// A procedure over the backend's tables.
    Raw(fn(&Bench) -> Step),
}

/// One case of the list.
pub struct Entry {
    /// `operator/types/name`, `abi/name`, …
    pub id: String,
    /// The cell it counts for.
    pub cell: Option<Cell>,
    /// Family, for tables.
    pub family: &'static str,
    /// Raised when the meaning of the operator changes.
    pub revision: u32,
    /// Least tier it belongs to.
    pub tier: Tier,
    /// Leaves the process unfit for another case.
    pub isolated: bool,
    /// How it runs.
    pub run: Run,
}

/// A procedure over the backend's tables, as the suites list them.
pub struct RawCase {
    /// Name within its suite.
    pub name: &'static str,
    /// Leaves the process unfit for another case.
    pub isolated: bool,
    /// The procedure.
    pub run: fn(&Bench) -> Step,
}

/// Part `index` of `count`, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 1.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

impl Shard {
    /// Reads `i/n`.
    pub fn parse(text: &str) -> Result<Shard> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, count)) if index >= 1 && index <= count => Ok(Shard { index, count }),
            _ => Err(Error::invalid(format!("'{text}' is no shard; give I/N with 1 ≤ I ≤ N, as in 2/8"))),
        }
    }
}

/// The name of a tier.
pub fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Spot => "spot",
        Tier::Smoke => "smoke",
        Tier::Quick => "quick",
        Tier::Full => "full",
        Tier::Bench => "bench",
    }
}

/// The tier of a name.
pub fn tier_of(name: &str) -> Result<Tier> {
    let known = [Tier::Spot, Tier::Smoke, Tier::Quick, Tier::Full];
    let found = known.into_iter().find(|t| tier_name(*t) == name);
    found.ok_or_else(|| Error::invalid(format!("there is no tier '{name}'; tiers are spot, smoke, quick and full")))
}

/// All cases of a tier and those below it, in catalogue order.
pub struct Plan {
    entries: Vec<Entry>,
    by_id: HashMap<String, usize>,
    cells: BTreeSet<Cell>,
}

impl Plan {
    /// The list of a tier.
    pub fn new(tier: Tier) -> Plan {
        let mut entries = Vec::new();
        for (suite, cases) in [("abi", crate::abi::CASES), ("memory", crate::memory::CASES), ("stream", crate::stream::CASES)] {
            entries.extend(cases.iter().map(|c| Entry {
                id: format!("{suite}/{}", c.name),
                cell: None,
                family: suite,
                revision: 1,
                tier: Tier::Smoke,
                isolated: c.isolated,
                run: Run::Raw(c.run),
            }));
        }
        operators().iter().for_each(|o| add_operator(o, tier, &mut entries));
        let wanted = |t: Tier| t <= tier.max(Tier::Smoke) && t != Tier::Bench;
        let typed = |id, operator: String, dtype: DType, family, tier, run| Entry {
            id,
            cell: Some(Cell::new(operator, dtype.to_string())),
            family,
            revision: 1,
            tier,
            isolated: false,
            run,
        };
        entries.extend(blas::cases().into_iter().filter(|c| wanted(c.tier)).map(|case| {
            typed(case.id(), format!("blas.{}", blas::name(case.desc.routine)), case.desc.dtype, "blas", case.tier, Run::Blas(case))
        }));
        entries.extend(fft::cases().into_iter().filter(|c| wanted(c.tier)).map(|case| {
            typed(case.id(), format!("fft.{}", fft::name(case.desc.transform)), case.desc.precision, "fft", case.tier, Run::Fft(case))
        }));
        let by_id = entries.iter().enumerate().map(|(i, e)| (e.id.clone(), i)).collect();
        let cells = entries.iter().filter_map(|e| e.cell.clone()).collect();
        Plan { entries, by_id, cells }
    }

    /// The cases.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
    /// The cells the cases fall into.
    pub fn cells(&self) -> &BTreeSet<Cell> {
        &self.cells
    }
    /// The case of an id.
    pub fn find(&self, id: &str) -> Option<&Entry> {
        self.by_id.get(id).map(|i| &self.entries[*i])
    }

    /// The cases whose id fits one of the globs (none given: all) and that fall to a shard. Cells are never split between shards.
    pub fn select(&self, globs: &[String], shard: Option<Shard>) -> Result<Vec<&Entry>> {
        if let Some(lost) = globs.iter().find(|g| !self.entries.iter().any(|e| glob(g, &e.id))) {
            return Err(Error::invalid(format!("no case fits '{lost}'; list them with --list")));
        }
        let wanted = |e: &&Entry| globs.is_empty() || globs.iter().any(|g| glob(g, &e.id));
        let mine = |e: &&Entry| {
            shard.is_none_or(|s| {
                let key = e.cell.as_ref().map_or_else(|| e.id.clone(), Cell::to_string);
                let digest = Sha256::digest(key.as_bytes());
                u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]) % s.count == s.index - 1
            })
        };
        Ok(self.entries.iter().filter(wanted).filter(mine).collect())
    }

    /// SHA-256 over ids and revisions, in hexadecimal: equal digests mean equal lists.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for e in &self.entries {
            hasher.update(format!("{} {}\n", e.id, e.revision));
        }
        hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

fn add_operator(operator: &'static Operator, tier: Tier, entries: &mut Vec<Entry>) {
    let cases = Cases::of(operator);
    for types in assignments(operator) {
        let Some(cell) = cases.iter().find_map(|case| cell_of(operator, &types, case)) else { continue };
        let prefix = format!("{}/{}", operator.name, types.name(operator));
        let mut add = |name: &str, tier, run| {
            entries.push(Entry {
                id: format!("{prefix}/{name}"),
                cell: Some(cell.clone()),
                family: operator.family,
                revision: operator.revision,
                tier,
                isolated: false,
                run,
            });
        };
        let all: Vec<&Case> = cases.iter().filter(|c| c.tier <= tier.max(Tier::Smoke) && c.tier != Tier::Bench).collect();
        let spots = [0, all.len() / 2, all.len().saturating_sub(1)];
        for (_, case) in all.iter().copied().enumerate().filter(|(i, _)| tier != Tier::Spot || spots.contains(i)) {
            add(&case.name, case.tier, Run::Operator(operator, types.clone(), case.clone()));
        }
        if tier >= Tier::Quick {
            add("property", Tier::Quick, Run::Property(operator, types.clone()));
        }
    }
}

/// The cell a case falls into, without making its contents.
fn cell_of(operator: &'static Operator, types: &Assignment, case: &Case) -> Option<Cell> {
    let tensor = |(i, c): (usize, &flagos_catalog::TensorCase)| match &c.shape {
        Some(shape) => Tensor::contiguous(types.inputs[i.min(types.inputs.len() - 1)], shape),
        None => Tensor::NONE,
    };
    let inputs: Vec<Tensor> = case.inputs.iter().enumerate().map(tensor).collect();
    let mut call = Call::new(operator, &inputs, &[], &case.attrs).ok()?;
    if types.free != DType::NONE {
        call.outputs = vec![Tensor::contiguous(types.free, &[])];
    } else if let Ok(inferred) = call.infer() {
        call.outputs = inferred.iter().map(|(t, shape)| Tensor::contiguous(t.unwrap_or(DType::NONE), shape)).collect();
    }
    Some(Cell::new(operator.name, call.cell_dtype().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_none_is_a_glob() {
        let plan = Plan::new(Tier::Full);
        assert_eq!(plan.by_id.len(), plan.entries.len(), "two cases share an id");
        for e in plan.entries() {
            assert_eq!(plan.find(&e.id).unwrap().id, e.id);
            assert!(!e.id.contains(['*', '?']), "{} would be taken for a glob", e.id);
        }
    }

    #[test]
    fn ids_are_those_that_seed_the_contents() {
        for e in Plan::new(Tier::Smoke).entries().iter().step_by(7) {
            let id = match &e.run {
                Run::Operator(operator, types, case) => case.instance(operator, types, 1).unwrap().id,
                Run::Blas(case) => case.instance(1).unwrap().id,
                Run::Fft(case) => case.instance(1).unwrap().id,
                Run::Property(..) | Run::Raw(_) => continue,
            };
            assert_eq!(id, e.id);
        }
    }

    #[test]
    fn cells_are_those_the_runtime_looks_up() {
        for e in Plan::new(Tier::Smoke).entries().iter().step_by(5) {
            if let Run::Operator(operator, types, case) = &e.run {
                let call = case.instance(operator, types, 1).unwrap().call;
                assert_eq!(*e.cell.as_ref().unwrap(), Cell::new(operator.name, call.cell_dtype().to_string()), "{}", e.id);
            }
        }
    }

    #[test]
    fn shards_are_a_partition_that_keeps_cells_whole() {
        let plan = Plan::new(Tier::Smoke);
        let mut seen: HashMap<String, u32> = HashMap::new();
        let mut count = 0;
        for index in 1..=4 {
            for e in plan.select(&[], Some(Shard { index, count: 4 })).unwrap() {
                count += 1;
                if let Some(cell) = &e.cell {
                    assert_eq!(*seen.entry(cell.to_string()).or_insert(index), index, "{cell} is split");
                }
            }
        }
        assert_eq!(count, plan.entries().len());
        assert!(plan.select(&["no/such".into()], None).is_err());
    }

    #[test]
    fn spots_are_a_few_cases_of_every_cell() {
        let (spot, smoke) = (Plan::new(Tier::Spot), Plan::new(Tier::Smoke));
        assert_eq!(spot.cells(), smoke.cells());
        assert!(spot.entries().iter().all(|e| smoke.find(&e.id).is_some()));
        let count = |plan: &Plan| plan.entries().iter().filter(|e| matches!(e.run, Run::Operator(..))).count();
        assert!(count(&spot) * 2 < count(&smoke), "{} of {}", count(&spot), count(&smoke));
    }

    #[test]
    fn the_digest_follows_the_list() {
        assert_eq!(Plan::new(Tier::Smoke).digest(), Plan::new(Tier::Smoke).digest());
        assert_ne!(Plan::new(Tier::Smoke).digest(), Plan::new(Tier::Quick).digest());
    }

    #[test]
    fn shards_are_read_strictly() {
        assert_eq!(Shard::parse("2/8").unwrap(), Shard { index: 2, count: 8 });
        for bad in ["0/4", "5/4", "x", "1", "1/0"] {
            assert!(Shard::parse(bad).is_err(), "{bad}");
        }
    }
}
