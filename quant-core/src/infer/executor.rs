//! Targets of a walk: one runs its operations in a memory, the other measures them without any.

use super::embedding;
use super::map::{Map, Values, part};
use super::op::Op;
use super::precision::Precision;
use super::walk::{Target, Walk};
use super::workspace::{Sizes, Workspace, first, too_small};
use crate::error::{Error, Result};
use crate::format::{Activations, Model, Tensors};
use core::fmt;
use core::marker::PhantomData;

/// Is told the number of each map of floats that is written, and its values.
pub(super) type Observer<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// A walk, or a part of one; returns the map that it ends with.
pub(super) type Path<'p> = &'p dyn Fn(&mut Walk<'_, '_>) -> Result<Map>;

/// The layers whose arithmetic is that of a type of values.
pub(super) trait Layers {
    const PRECISION: Precision;

    /// Values of a map in a float of the arena.
    const PER_FLOAT: usize;

    /// Workspace of an operation, but for its maps.
    fn sizes(op: &Op<'_, '_>) -> Sizes;

    /// Runs an operation, whose maps are there.
    fn run(op: &Op<'_, '_>, workspace: &mut Workspace<'_>) -> Result<()>;

    /// The part of the memory where maps of floats lie.
    fn floats<'w>(workspace: &'w Workspace<'_>) -> &'w [f32];

    /// The part where maps of floats lie, taken out of the memory.
    fn into_floats(workspace: Workspace<'_>) -> &[f32];
}

/// Memory and work of a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) sizes: Sizes,
    pub(super) macs: u64,
    /// Maps that are written.
    pub(super) maps: usize,
}

impl Needs {
    /// The floats of its arena.
    pub(super) fn arena_len(&self) -> usize {
        self.sizes.total().unwrap_or(usize::MAX)
    }
}

/// The functions of one arithmetic: a program links those that it names.
#[derive(Clone, Copy)]
pub struct Engine {
    pub(super) precision: Precision,
    pub(super) measure: Measure,
    pub(super) execute: Execute,
}

type Measure = fn(&Model<'_>, Tensors<'_>, Path<'_>) -> Result<Needs>;

type Execute = for<'a> fn(
    &Model<'_>,
    Tensors<'_>,
    Path<'_>,
    &Needs,
    &'a mut [f32],
    Option<Observer<'_>>,
) -> Result<(Map, &'a [f32])>;

impl Engine {
    /// The engine of an arithmetic.
    pub(super) const fn of<A: Layers>() -> Self {
        Self { precision: A::PRECISION, measure: measure::<A>, execute: execute::<A> }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.precision.fmt(f)
    }
}

impl PartialEq for Engine {
    fn eq(&self, other: &Self) -> bool {
        self.precision == other.precision
    }
}

impl Eq for Engine {}

/// Measures a walk over some tensors of a model.
fn measure<A: Layers>(model: &Model<'_>, tensors: Tensors<'_>, path: Path<'_>) -> Result<Needs> {
    let mut planner = Planner { sizes: Sizes::default(), arithmetic: PhantomData::<A> };
    let mut walk = Walk::new(tensors, activations::<A>(model)?, &mut planner);
    path(&mut walk)?;
    let (macs, maps, peak) = (walk.macs, walk.written, walk.stack.peak);
    let sizes = Sizes { maps: peak.div_ceil(A::PER_FLOAT), ..planner.sizes };
    Ok(Needs { sizes, macs, maps })
}

/// Runs a walk that was measured; returns its last map, of floats, and the values of that.
fn execute<'a, A: Layers>(
    model: &Model<'_>,
    tensors: Tensors<'_>,
    path: Path<'_>,
    needs: &Needs,
    arena: &'a mut [f32],
    observer: Option<Observer<'_>>,
) -> Result<(Map, &'a [f32])> {
    let workspace = Workspace::new(&needs.sizes, arena)?;
    let sizes = needs.sizes;
    let arithmetic = PhantomData::<A>;
    let mut executor = Executor { workspace, sizes, observer, written: 0, arithmetic };
    let mut walk = Walk::new(tensors, activations::<A>(model)?, &mut executor);
    let map = path(&mut walk)?;
    if walk.macs != needs.macs {
        return Err(too_small(0, needs.arena_len()));
    }
    Ok((map, part(A::into_floats(executor.workspace), map.at, map.len())))
}

/// The range of each map, for bytes.
fn activations<'m, A: Layers>(model: &Model<'m>) -> Result<Option<Activations<'m>>> {
    match A::PRECISION {
        Precision::Float => Ok(None),
        Precision::Integer => {
            let needed = "activation scales, as `fmq calibrate` adds them";
            model.activations().map(Some).ok_or(Error::Encoding { needed })
        }
    }
}

/// Gathers what operations take.
struct Planner<A> {
    sizes: Sizes,
    arithmetic: PhantomData<A>,
}

impl<A: Layers> Target for Planner<A> {
    fn run(&mut self, op: &Op<'_, '_>) -> Result<()> {
        self.sizes = self.sizes.max(&A::sizes(op));
        Ok(())
    }

    fn keep(&mut self, skip: usize, _scale: f32) -> Result<()> {
        self.sizes.skips = self.sizes.skips.max(skip + 1);
        Ok(())
    }

    fn kept(&self, _skip: usize) -> Result<f32> {
        Ok(1.0)
    }
}

/// Runs operations in a memory.
///
/// Sums are added in one fixed order, without fused multiply-add, so that every target gives the same
/// bits.
struct Executor<'a, 'o, A> {
    workspace: Workspace<'a>,
    sizes: Sizes,
    observer: Option<Observer<'o>>,
    /// Maps written so far.
    written: usize,
    arithmetic: PhantomData<A>,
}

impl<A: Layers> Executor<'_, '_, A> {
    /// Fails unless the memory holds the maps of an operation and what it takes besides.
    fn check(&self, op: &Op<'_, '_>) -> Result<()> {
        let needed = self.sizes.max(&A::sizes(op));
        if needed != self.sizes {
            return Err(too_small(
                needed.total().unwrap_or(usize::MAX),
                self.sizes.total().unwrap_or(usize::MAX),
            ));
        }
        for map in op.maps().into_iter().flatten() {
            let there = match map.values {
                Values::Floats => A::floats(&self.workspace).len(),
                Values::Bytes(_) => self.workspace.maps.len().saturating_mul(A::PER_FLOAT),
            };
            if map.end() > there {
                return Err(too_small(map.end(), there));
            }
        }
        Ok(())
    }
}

impl<A: Layers> Target for Executor<'_, '_, A> {
    fn run(&mut self, op: &Op<'_, '_>) -> Result<()> {
        self.check(op)?;
        if !embedding::run(op, &mut self.workspace)? {
            A::run(op, &mut self.workspace)?;
        }
        if let (Some(map), Some(observer)) = (op.written(), &mut self.observer) {
            observer(self.written, part(self.workspace.maps, map.at, map.len()));
            self.written += 1;
        }
        Ok(())
    }

    fn keep(&mut self, skip: usize, scale: f32) -> Result<()> {
        let kept = first(self.workspace.skips, skip + 1)?;
        if let Some(kept) = kept.last_mut() {
            *kept = scale;
        }
        Ok(())
    }

    fn kept(&self, skip: usize) -> Result<f32> {
        let kept = self.workspace.skips.get(skip).copied();
        kept.ok_or_else(|| too_small(skip + 1, self.workspace.skips.len()))
    }
}
