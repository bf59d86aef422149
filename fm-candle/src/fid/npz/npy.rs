//! `.npy`, numpy's form of one array.
//!
//! ```text
//! "\x93NUMPY" | major, minor | u16 (major 1) or u32 (2, 3) length | header | elements
//! header: {'descr': '<f8', 'fortran_order': False, 'shape': (84, 84), }
//! ```
//!
//! Numbers are little-endian, elements in C order. Source: numpy, `numpy/lib/format.py`.
//!
//! An array is taken only if it holds exactly what its header claims. Reading stops one byte past
//! the claim, so that memory grows with what a file holds, never with what it says.

use std::io::{self, Read};

pub(super) const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Most bytes of an array that is read into memory, 4 GiB: 21 000 images of 256 x 256 in colour.
const LIMIT: u64 = 1 << 32;

/// Longest header in bytes; numpy's own reader refuses more than 10 000 by default.
pub(super) const MAX_HEADER: u64 = 1 << 16;

/// Most dimensions of an array; numpy's own limit.
const MAX_DIMS: usize = 64;

/// The elements of an array, by their dtype.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// `|u1`.
    U8(Vec<u8>),
    /// `<i8`.
    I64(Vec<i64>),
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
    /// As many elements as the shape multiplies to.
    pub values: Values,
}

impl Values {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    pub(super) fn descr(&self) -> &'static str {
        match self {
            Self::U8(_) => "|u1",
            Self::I64(_) => "<i8",
            Self::F32(_) => "<f4",
            Self::F64(_) => "<f8",
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::U8(values) => values.clone(),
            Self::I64(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F64(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// The values in `bytes`, or `None` for a dtype that is not ours.
    fn parse(descr: &str, bytes: Vec<u8>) -> Option<Self> {
        Some(match descr {
            "|u1" | "<u1" | "u1" => Self::U8(bytes),
            "<i8" => {
                Self::I64(bytes.as_chunks().0.iter().map(|x| i64::from_le_bytes(*x)).collect())
            }
            "<f4" => {
                Self::F32(bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect())
            }
            "<f8" => {
                Self::F64(bytes.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x)).collect())
            }
            _ => return None,
        })
    }

    /// The values as f64, whatever floating type they have.
    pub(super) fn into_f64(self) -> Option<Vec<f64>> {
        match self {
            Self::F32(values) => Some(values.into_iter().map(f64::from).collect()),
            Self::F64(values) => Some(values),
            Self::U8(_) | Self::I64(_) => None,
        }
    }
}

/// Bytes of one element, or `None` for a dtype that is not ours.
fn size_of(descr: &str) -> Option<u64> {
    match descr {
        "|u1" | "<u1" | "u1" => Some(1),
        "<f4" => Some(4),
        "<i8" | "<f8" => Some(8),
        _ => None,
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
    let head = head(&mut source)?;
    let values = elements_of(source, &head)?;
    Ok(Array { shape: head.shape, values })
}

/// What comes before the elements.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) descr: String,
    pub(super) shape: Vec<usize>,
    /// Bytes of an element, and of all that the shape says there are.
    pub(super) size: u64,
    pub(super) claim: u64,
    /// Bytes of the head.
    pub(super) len: u64,
}

fn lost(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("reading the {what}: {error}")
}

/// Reads up to the first element.
pub(super) fn head(source: &mut impl Read) -> Result<Head, String> {
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
    let Header { descr, fortran_order, shape } =
        Header::parse(&text).ok_or_else(|| format!("cannot read the header {}", text.trim()))?;

    let Some(size) = size_of(&descr) else {
        return Err(format!("dtype `{descr}`, but read are |u1, <i8, <f4 and <f8"));
    };
    if fortran_order && shape.len() > 1 {
        return Err("is in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let claim = elements(&shape).and_then(|n| n.checked_mul(size));
    let claim = claim.ok_or_else(|| too_large(&shape, &descr))?;
    Ok(Head { descr, shape, size, claim, len: 8 + wide + length })
}

fn too_large(shape: &[usize], descr: &str) -> String {
    format!("shape {shape:?} of `{descr}` exceeds {LIMIT} bytes")
}

/// Reads the elements into memory.
pub(super) fn elements_of(source: impl Read, head: &Head) -> Result<Values, String> {
    let Head { descr, shape, claim, .. } = head;
    if *claim > LIMIT {
        return Err(too_large(shape, descr));
    }
    let mut bytes = Vec::new();
    source.take(claim + 1).read_to_end(&mut bytes).map_err(lost("elements"))?;
    if bytes.len() as u64 != *claim {
        let more = if bytes.len() as u64 > *claim { "at least " } else { "" };
        return Err(format!(
            "the header claims {claim} bytes for {shape:?}, but {more}{} follow",
            bytes.len()
        ));
    }
    Values::parse(descr, bytes).ok_or_else(|| "dtype is not known".into())
}

/// What the header of an array says.
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
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
