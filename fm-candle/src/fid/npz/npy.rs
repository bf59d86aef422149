//! `.npy`, numpy's form of one array.
//!
//! ```text
//! "\x93NUMPY" | major, minor | u16 (major 1) or u32 (2, 3) length | header | elements
//! header: {'descr': '<f8', 'fortran_order': False, 'shape': (84, 84), }
//! ```
//!
//! We write little-endian numbers in C order. Read are integers and floats of any size and byte order,
//! in C or Fortran order. Source: numpy, `numpy/lib/format.py`.
//!
//! An array is taken only if it holds exactly what its header claims. Reading stops one byte past
//! the claim, so that memory grows with what a file holds, never with what it says.

use std::io::{self, Read};

use half::f16;

pub(super) const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Most bytes of an array that is read into memory, 4 GiB: 21 000 images of 256 x 256 in colour.
const LIMIT: u64 = 1 << 32;

/// Longest header in bytes; numpy's own reader refuses more than 10 000 by default.
pub(super) const MAX_HEADER: u64 = 1 << 16;

/// Most dimensions of an array; numpy's own limit.
const MAX_DIMS: usize = 64;

/// The elements of an array. Whole numbers of all sizes but bytes are read as `I64`.
#[derive(Debug, Clone, PartialEq)]
pub enum NpyValues {
    /// `|u1`.
    U8(Vec<u8>),
    /// `<i8`.
    I64(Vec<i64>),
    /// `<f2`.
    F16(Vec<f16>),
    /// `<f4`.
    F32(Vec<f32>),
    /// `<f8`.
    F64(Vec<f64>),
}

/// An array: its shape, and its elements in C order.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Length of each axis; none for a scalar.
    pub shape: Vec<usize>,
    /// The elements, as many as the shape multiplies to.
    pub values: NpyValues,
}

impl NpyValues {
    pub(in crate::fid) fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    pub(super) fn descr(&self) -> &'static str {
        match self {
            Self::U8(_) => "|u1",
            Self::I64(_) => "<i8",
            Self::F16(_) => "<f2",
            Self::F32(_) => "<f4",
            Self::F64(_) => "<f8",
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::U8(values) => values.clone(),
            Self::I64(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F64(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// The values as f64.
    pub(in crate::fid) fn into_f64(self) -> Vec<f64> {
        match self {
            Self::U8(values) => values.into_iter().map(f64::from).collect(),
            Self::I64(values) => values.into_iter().map(|value| value as f64).collect(),
            Self::F16(values) => values.into_iter().map(f64::from).collect(),
            Self::F32(values) => values.into_iter().map(f64::from).collect(),
            Self::F64(values) => values,
        }
    }

    /// The elements in C order, of an array of this shape whose first axis is the fastest.
    fn transposed(self, shape: &[usize]) -> Self {
        match self {
            Self::U8(values) => Self::U8(transposed(&values, shape)),
            Self::I64(values) => Self::I64(transposed(&values, shape)),
            Self::F16(values) => Self::F16(transposed(&values, shape)),
            Self::F32(values) => Self::F32(transposed(&values, shape)),
            Self::F64(values) => Self::F64(transposed(&values, shape)),
        }
    }
}

fn transposed<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let strides: Vec<usize> = shape
        .iter()
        .scan(1, |stride, side| Some(core::mem::replace(stride, *stride * side)))
        .collect();
    let from = |mut at: usize| {
        let axes = shape.iter().zip(&strides).rev();
        axes.fold(0, |from, (&side, &stride)| {
            let along = at % side;
            at /= side;
            from + along * stride
        })
    };
    (0..values.len()).map(|at| values[from(at)]).collect()
}

/// The type of an array's elements, as in `<f8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dtype {
    big_endian: bool,
    /// `f`, `i` or `u`.
    kind: u8,
    /// Bytes of an element.
    size: usize,
}

impl Dtype {
    pub(super) const U8: Self = Self { big_endian: false, kind: b'u', size: 1 };

    /// The dtype of this name; none for one that is no number of ours.
    fn parse(descr: &str) -> Option<Self> {
        let (big_endian, name) = match descr.as_bytes() {
            [b'>', name @ ..] => (true, name),
            [b'<' | b'|' | b'=', name @ ..] | name => (false, name),
        };
        let &[kind, size] = name else { return None };
        let size = usize::from(size.checked_sub(b'0')?);
        let known = matches!((kind, size), (b'f', 2 | 4 | 8) | (b'i' | b'u', 1 | 2 | 4 | 8));
        known.then_some(Self { big_endian: big_endian && size > 1, kind, size })
    }

    /// The values in `bytes`.
    fn values(self, bytes: Vec<u8>) -> Result<NpyValues, String> {
        Ok(match (self.kind, self.size) {
            (b'u', 1) => NpyValues::U8(bytes),
            (b'f', 2) => NpyValues::F16(self.each(&bytes, f16::from_le_bytes)),
            (b'f', 4) => NpyValues::F32(self.each(&bytes, f32::from_le_bytes)),
            (b'f', _) => NpyValues::F64(self.each(&bytes, f64::from_le_bytes)),
            (b'i', 1) => NpyValues::I64(self.each(&bytes, |x| i8::from_le_bytes(x).into())),
            (b'i', 2) => NpyValues::I64(self.each(&bytes, |x| i16::from_le_bytes(x).into())),
            (b'i', 4) => NpyValues::I64(self.each(&bytes, |x| i32::from_le_bytes(x).into())),
            (b'i', _) => NpyValues::I64(self.each(&bytes, i64::from_le_bytes)),
            (_, 2) => NpyValues::I64(self.each(&bytes, |x| u16::from_le_bytes(x).into())),
            (_, 4) => NpyValues::I64(self.each(&bytes, |x| u32::from_le_bytes(x).into())),
            (_, _) => {
                let values = self.each(&bytes, u64::from_le_bytes).into_iter().map(i64::try_from);
                let values = values.collect::<Result<_, _>>();
                NpyValues::I64(values.map_err(|_| "holds whole numbers beyond 2^63")?)
            }
        })
    }

    /// The elements in `bytes`, each made of its bytes in little-endian order.
    fn each<const N: usize, T>(self, bytes: &[u8], make: impl Fn([u8; N]) -> T) -> Vec<T> {
        let elements = bytes.as_chunks().0.iter().map(|&(mut element)| {
            if self.big_endian {
                element.reverse();
            }
            make(element)
        });
        elements.collect()
    }
}

/// Elements of an array of this shape, unless they overflow.
pub(super) fn elements(shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(1_u64, |n, &side| n.checked_mul(u64::try_from(side).ok()?))
}

/// Magic, version 1.0 and header, padded so that the elements begin at a multiple of 64.
pub(super) fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let sides: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let sides = format!("({}{comma})", sides.join(", "));
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {sides}, }}");
    // Magic, version and length take 10 bytes, the closing newline one.
    let total = (10 + text.len() + 1).next_multiple_of(64);
    let padding = total - 10 - text.len() - 1;
    let length = u16::try_from(total - 10).unwrap_or(u16::MAX);
    let mut bytes = [&MAGIC[..], &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat();
    bytes.resize(bytes.len() + padding, b' ');
    bytes.push(b'\n');
    bytes
}

/// One `.npy` file.
pub(super) fn parse(mut source: impl Read) -> Result<Array, String> {
    let (head, _) = head(&mut source)?;
    head.read(source)
}

/// The description of an array, which comes before its elements.
#[derive(Debug)]
pub(super) struct ArrayHead {
    /// Name of the dtype.
    pub(super) descr: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// True where the first axis is the fastest (column-major), not the last.
    pub(super) fortran: bool,
    /// Bytes of all elements.
    pub(super) claim: u64,
}

impl ArrayHead {
    /// Of an array of this dtype, shape and order.
    pub(super) fn new(descr: String, shape: Vec<usize>, fortran: bool) -> Result<Self, String> {
        let Some(dtype) = Dtype::parse(&descr) else {
            let objects = if descr.contains('O') { " of Python objects" } else { "" };
            return Err(format!(
                "dtype `{descr}`{objects}, but read are whole numbers, and floats of 2, 4 and 8 bytes"
            ));
        };
        let claim = elements(&shape).and_then(|n| n.checked_mul(dtype.size as u64));
        let claim = claim.ok_or_else(|| too_large(&shape, &descr))?;
        // In an array of one axis both orders are the same.
        let fortran = fortran && shape.iter().filter(|&&side| side != 1).count() > 1;
        Ok(Self { descr, dtype, shape, fortran, claim })
    }

    /// Reads the elements into memory.
    pub(super) fn read(self, source: impl Read) -> Result<Array, String> {
        let Self { descr, dtype, shape, fortran, claim } = self;
        if claim > LIMIT {
            return Err(too_large(&shape, &descr));
        }
        let mut bytes = Vec::new();
        source.take(claim + 1).read_to_end(&mut bytes).map_err(lost("elements"))?;
        if bytes.len() as u64 != claim {
            let more = if bytes.len() as u64 > claim { "at least " } else { "" };
            return Err(format!(
                "the header claims {claim} bytes for {shape:?}, but {more}{} follow",
                bytes.len()
            ));
        }
        let values = dtype.values(bytes)?;
        let values = if fortran { values.transposed(&shape) } else { values };
        Ok(Array { shape, values })
    }
}

fn lost(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("reading the {what}: {error}")
}

/// Reads up to the first element: what is said, and in how many bytes.
pub(super) fn head(source: &mut impl Read) -> Result<(ArrayHead, u64), String> {
    let mut head = [0; 8];
    source.read_exact(&mut head).map_err(lost("magic"))?;
    if !head.starts_with(MAGIC) {
        return Err("does not begin as .npy files do".into());
    }
    let (wide, length) = match head[6] {
        1 => {
            let mut length = [0; 2];
            source.read_exact(&mut length).map_err(lost("header's length"))?;
            (2, u64::from(u16::from_le_bytes(length)))
        }
        2 | 3 => {
            let mut length = [0; 4];
            source.read_exact(&mut length).map_err(lost("header's length"))?;
            (4, u64::from(u32::from_le_bytes(length)))
        }
        major => return Err(format!("version {major}.{}, but known are 1 to 3", head[7])),
    };
    if length > MAX_HEADER {
        return Err(format!("claims a header of {length} bytes, more than {MAX_HEADER}"));
    }
    let mut text = Vec::new();
    source.by_ref().take(length).read_to_end(&mut text).map_err(lost("header"))?;
    if text.len() as u64 != length {
        return Err(format!("claims a header of {length} bytes, but {} follow", text.len()));
    }
    let text = String::from_utf8(text).map_err(|_| "the header is no text".to_string())?;
    let NpyHeader { descr, fortran_order, shape } =
        NpyHeader::parse(&text).ok_or_else(|| format!("cannot read the header {}", text.trim()))?;

    Ok((ArrayHead::new(descr, shape, fortran_order)?, 8 + wide + length))
}

fn too_large(shape: &[usize], descr: &str) -> String {
    format!("shape {shape:?} of `{descr}` exceeds {LIMIT} bytes")
}

/// The fields of the header of an array.
struct NpyHeader {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl NpyHeader {
    /// Reads the Python dict of exactly these three keys, in any order.
    fn parse(text: &str) -> Option<Self> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            rest = after.trim_start().strip_prefix(':')?.trim_start();
            match key {
                "descr" if descr.is_none() => {
                    let (value, after) = quoted(rest)?;
                    descr = Some(value.to_string());
                    rest = after;
                }
                "fortran_order" if fortran_order.is_none() => {
                    let (value, after) = match rest.strip_prefix("True") {
                        Some(after) => (true, after),
                        None => (false, rest.strip_prefix("False")?),
                    };
                    fortran_order = Some(value);
                    rest = after;
                }
                "shape" if shape.is_none() => {
                    let (inside, after) = rest.strip_prefix('(')?.split_once(')')?;
                    shape = Some(sides(inside)?);
                    rest = after;
                }
                _ => return None,
            }
            rest = rest.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
        Some(Self { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// A string in quotes at the start of `text`, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// The inside of a tuple: `84, 84`, `84,` or nothing; Python 2 wrote `84L`.
fn sides(inside: &str) -> Option<Vec<usize>> {
    let inside = inside.trim();
    let inside = inside.strip_suffix(',').unwrap_or(inside);
    if inside.is_empty() {
        return Some(Vec::new());
    }
    let side = |side: &str| {
        let side = side.trim();
        side.strip_suffix('L').unwrap_or(side).parse().ok()
    };
    let sides: Vec<usize> = inside.split(',').map(side).collect::<Option<_>>()?;
    (sides.len() <= MAX_DIMS).then_some(sides)
}
