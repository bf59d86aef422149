//! The elements of one tensor: little-endian bytes, in place where the file stores them so.

use core::ops::Range;
use std::borrow::Cow;

use ::safetensors::Dtype;
use ::safetensors::tensor::View;
use candle_core::{DType, Device, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::entry::{count, size_of};

/// Numbers converted at a time where an array of them lies between.
const BLOCK: usize = 64;

/// The elements of a tensor in row-major order.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    dtype: DType,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Elements<'a> {
    /// Takes a file's `bytes` of a tensor of this dtype and shape.
    pub(super) fn new(dtype: Dtype, shape: &[usize], bytes: Cow<'a, [u8]>) -> Result<Self, String> {
        if count(shape).and_then(|n| n.checked_mul(size_of(dtype))) != Some(bytes.len()) {
            return Err(format!("{} bytes do not fill {dtype:?} {shape:?}", bytes.len()));
        }
        let bytes = match dtype {
            Dtype::I8 => widen(&bytes, |[byte]| i16::from(byte.cast_signed()).to_le_bytes()),
            Dtype::U16 => widen(&bytes, |two| u32::from(u16::from_le_bytes(two)).to_le_bytes()),
            Dtype::F8_E4M3 => widen(&bytes, |[byte]| e4m3(byte).to_le_bytes()),
            // The upper byte of an f16.
            Dtype::F8_E5M2 => {
                widen(&bytes, |[byte]| f16::from_le_bytes([0, byte]).to_f32().to_le_bytes())
            }
            Dtype::U64 => {
                let values = bytes.as_chunks().0.iter().map(|&eight| u64::from_le_bytes(eight));
                if let Some(value) = values.max().filter(|&max| i64::try_from(max).is_err()) {
                    return Err(format!(
                        "holds {value}, beyond the integers of 64 bits with a sign"
                    ));
                }
                bytes
            }
            _ => bytes,
        };
        Ok(Self { dtype: dtype_of(dtype)?, bytes })
    }

    /// The elements of a tensor in memory, brought to the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::Candle`](crate::Error::Candle) where that fails.
    pub fn of(tensor: &Tensor) -> crate::Result<Elements<'static>> {
        let tensor = tensor.to_device(&Device::Cpu)?;
        let bytes = View::data(&tensor).into_owned();
        Ok(Elements { dtype: tensor.dtype(), bytes: Cow::Owned(bytes) })
    }

    /// The type of the elements: an integer or floating type of whole bytes.
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size_in_bytes()
    }

    /// Returns true if there are no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The little-endian bytes: borrowed where the file stores them plainly.
    pub const fn bytes(&self) -> &Cow<'a, [u8]> {
        &self.bytes
    }

    /// The little-endian bytes.
    pub fn into_bytes(self) -> Cow<'a, [u8]> {
        self.bytes
    }

    /// Writes the floating elements of a `range` as f32.
    ///
    /// f32 keeps its bits, f16 and bf16 their values; f64 is rounded to nearest, to infinity
    /// beyond f32.
    ///
    /// # Panics
    ///
    /// If the elements are integers, if some of the range are not there, or if `out` has
    /// another length than it.
    pub fn fill_f32(&self, range: Range<usize>, out: &mut [f32]) {
        assert_eq!(range.len(), out.len(), "elements asked for and taken");
        let size = self.dtype.size_in_bytes();
        let bytes = &self.bytes[range.start * size..range.end * size];
        match self.dtype {
            DType::F32 => convert(bytes, out, f32::from_le_bytes),
            #[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
            DType::F64 => convert(bytes, out, |value| f64::from_le_bytes(value) as f32),
            DType::F16 => {
                blockwise(bytes, out, f16::from_le_bytes, <[f16]>::convert_to_f32_slice);
            }
            DType::BF16 => {
                blockwise(bytes, out, bf16::from_le_bytes, <[bf16]>::convert_to_f32_slice);
            }
            other => panic!("{other:?} is no floating dtype"),
        }
    }

    /// The floating element at `index`, exactly; NaN for integers and where there is none.
    pub fn f64_at(&self, index: usize) -> f64 {
        if self.dtype == DType::F64 {
            return self
                .bytes
                .as_chunks()
                .0
                .get(index)
                .map_or(f64::NAN, |&b| f64::from_le_bytes(b));
        }
        let mut value = [f32::NAN];
        if self.dtype.is_float() && index < self.len() {
            self.fill_f32(index..index + 1, &mut value);
        }
        f64::from(value[0])
    }

    /// The integer elements; `None` for floating ones.
    pub fn i64s(&self) -> Option<Vec<i64>> {
        let bytes = &self.bytes;
        match self.dtype {
            DType::U8 => Some(integers(bytes, u8::from_le_bytes)),
            DType::I16 => Some(integers(bytes, i16::from_le_bytes)),
            DType::I32 => Some(integers(bytes, i32::from_le_bytes)),
            DType::U32 => Some(integers(bytes, u32::from_le_bytes)),
            DType::I64 => Some(integers(bytes, i64::from_le_bytes)),
            _ => None,
        }
    }

    /// A CPU tensor of these elements, whose number the shape fits.
    pub(super) fn tensor(&self, shape: &[usize]) -> Result<Tensor, String> {
        Tensor::from_raw_buffer(&self.bytes, self.dtype, shape, &Device::Cpu)
            .map_err(|error| error.to_string())
    }
}

/// The value of a float of 8 bits with 4 of exponent, which has NaN but no infinity (`e4m3fn`).
fn e4m3(byte: u8) -> f32 {
    let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2_f32.powi(-9),
        _ => (8.0 + fraction) * 2_f32.powi(exponent - 10),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// Every element in a wider type.
fn widen<const N: usize, const M: usize>(
    bytes: &[u8],
    value: impl Fn([u8; N]) -> [u8; M],
) -> Cow<'static, [u8]> {
    Cow::Owned(bytes.as_chunks().0.iter().flat_map(|&element| value(element)).collect())
}

/// Candle's dtype for a file's: the same, or a wider one of the same values where candle has none.
///
/// # Errors
///
/// Why a tensor of this dtype cannot be a weight.
pub(super) fn dtype_of(dtype: Dtype) -> Result<DType, String> {
    Ok(match dtype {
        Dtype::BOOL | Dtype::U8 => DType::U8,
        Dtype::I8 | Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::U16 | Dtype::U32 => DType::U32,
        Dtype::I64 | Dtype::U64 => DType::I64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 | Dtype::F8_E4M3 | Dtype::F8_E5M2 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::C64 => return Err("is complex (C64), which cannot be a weight".into()),
        other => return Err(format!("is of the type {other:?}, which cannot be read")),
    })
}

fn convert<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, &bytes)| *out = value(bytes));
}

/// Converts values block by block, for types that convert fast as arrays only.
fn blockwise<T: Copy + Default>(
    bytes: &[u8],
    out: &mut [f32],
    value: impl Fn([u8; 2]) -> T,
    to_f32: impl Fn(&[T], &mut [f32]),
) {
    let mut block = [T::default(); BLOCK];
    for (out, bytes) in out.chunks_mut(BLOCK).zip(bytes.as_chunks().0.chunks(BLOCK)) {
        let block = &mut block[..out.len()];
        block.iter_mut().zip(bytes).for_each(|(half, &bytes)| *half = value(bytes));
        to_f32(block, out);
    }
}

fn integers<T: Into<i64>, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<i64> {
    bytes.as_chunks().0.iter().map(|&bytes| value(bytes).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements<const N: usize>(dtype: Dtype, values: &[[u8; N]]) -> Elements<'static> {
        Elements::new(dtype, &[values.len()], values.as_flattened().to_vec().into()).unwrap()
    }

    fn f32s(elements: &Elements<'_>) -> Vec<f32> {
        let mut out = vec![0.0; elements.len()];
        elements.fill_f32(0..elements.len(), &mut out);
        out
    }

    #[test]
    fn f32_keeps_its_bits() {
        let bits = [0x7f80_0001_u32, 0xffc1_2345, 0x8000_0000, 1, 0x3f80_0000];
        let found = f32s(&elements(Dtype::F32, &bits.map(u32::to_le_bytes)));
        assert_eq!(found.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), bits);
    }

    #[test]
    fn every_f16_and_bf16_has_its_value() {
        let all: Vec<[u8; 2]> = (0..=u16::MAX).map(u16::to_le_bytes).collect();
        let agree = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        for (bits, found) in (0..=u16::MAX).zip(f32s(&elements(Dtype::F16, &all))) {
            assert!(agree(found, f16::from_bits(bits).to_f32()), "{bits:#06x}: {found}");
        }
        for (bits, found) in (0..=u16::MAX).zip(f32s(&elements(Dtype::BF16, &all))) {
            assert!(agree(found, f32::from_bits(u32::from(bits) << 16)), "{bits:#06x}: {found}");
        }
    }

    #[test]
    fn f64_is_rounded_to_nearest() {
        let values = [0.1, -2.5, 1e300, f64::NEG_INFINITY, 1e-60];
        let found = f32s(&elements(Dtype::F64, &values.map(f64::to_le_bytes)));
        assert_eq!(found, [0.1, -2.5, f32::INFINITY, f32::NEG_INFINITY, 0.0]);
    }

    #[test]
    fn tensors_in_memory_have_the_same_elements() {
        let tensor = Tensor::new(&[[1.5_f32, -2.0], [0.25, 4.0]], &Device::Cpu).unwrap();
        assert_eq!(f32s(&Elements::of(&tensor.t().unwrap()).unwrap()), [1.5, 0.25, -2.0, 4.0]);
    }

    #[test]
    fn single_elements_are_exact() {
        let doubles = elements(Dtype::F64, &[0.1, 1e300].map(f64::to_le_bytes));
        assert_eq!((doubles.f64_at(0), doubles.f64_at(1)), (0.1, 1e300));
        assert!(doubles.f64_at(2).is_nan());
        assert_eq!(elements(Dtype::F32, &[1.5_f32.to_le_bytes()]).f64_at(0), 1.5);
    }

    #[test]
    fn a_part_is_the_part_of_the_whole() {
        let values: Vec<_> =
            (0..300_u16).map(|i| f16::from_f32(f32::from(i)).to_le_bytes()).collect();
        let elements = elements(Dtype::F16, &values);
        for (start, len) in [(0, 0), (0, 1), (63, 2), (7, 130), (299, 1), (300, 0)] {
            let mut out = vec![-1.0; len];
            elements.fill_f32(start..start + len, &mut out);
            assert!(out.iter().zip(start..).all(|(&value, i)| value == i as f32));
        }
    }

    #[test]
    fn integers_of_every_width() {
        let of = |dtype, bytes: &[u8]| {
            let len = bytes.len() / size_of(dtype);
            Elements::new(dtype, &[len], bytes.to_vec().into()).unwrap().i64s()
        };
        assert_eq!(of(Dtype::U8, &[255]), Some(vec![255]));
        assert_eq!(of(Dtype::BOOL, &[0, 1]), Some(vec![0, 1]));
        assert_eq!(of(Dtype::I8, &[0xff, 0x7f]), Some(vec![-1, 127]));
        assert_eq!(of(Dtype::I16, &[0xfe, 0xff]), Some(vec![-2]));
        assert_eq!(of(Dtype::I32, &[0xfd, 0xff, 0xff, 0xff]), Some(vec![-3]));
        assert_eq!(of(Dtype::U32, &[0xff; 4]), Some(vec![0xffff_ffff]));
        assert_eq!(of(Dtype::I64, &i64::MIN.to_le_bytes()), Some(vec![i64::MIN]));
        assert_eq!(of(Dtype::F32, &[0; 4]), None);
    }

    #[test]
    fn widens_what_candle_lacks() {
        let bytes = Elements::new(Dtype::I8, &[2], [0xff, 0x7f][..].into()).unwrap();
        assert_eq!(bytes.tensor(&[2]).unwrap().to_vec1::<i16>().unwrap(), [-1, 127]);
        let flags = Elements::new(Dtype::BOOL, &[2], [0, 1][..].into()).unwrap();
        assert_eq!(flags.tensor(&[2]).unwrap().to_vec1::<u8>().unwrap(), [0, 1]);
        let short = Elements::new(Dtype::U16, &[1], [0xff, 0xff][..].into()).unwrap();
        assert_eq!((short.dtype(), short.i64s()), (DType::U32, Some(vec![0xffff])));
        let long = |byte| Elements::new(Dtype::U64, &[1], vec![1, 0, 0, 0, 0, 0, 0, byte].into());
        assert_eq!(long(0x7f).unwrap().i64s(), Some(vec![i64::MAX - 0xff_ffff_ffff_fffe]));
        assert!(long(0x80).unwrap_err().contains("holds 9223372036854775809"));
        assert!(Elements::new(Dtype::C64, &[1], [0; 8][..].into()).is_err());
    }

    #[test]
    fn floats_of_8_bits_have_their_values() {
        let values = |dtype, bytes: [u8; 8]| f32s(&elements(dtype, &bytes.map(|byte| [byte])));
        let found = values(Dtype::F8_E4M3, [0x00, 0x01, 0x07, 0x08, 0x38, 0x7e, 0xbc, 0x80]);
        let tiny = 2_f32.powi(-9);
        assert_eq!(found, [0.0, tiny, 7.0 * tiny, 8.0 * tiny, 1.0, 448.0, -1.5, 0.0]);
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan() && e4m3(0x80).is_sign_negative());
        let found = values(Dtype::F8_E5M2, [0x00, 0x01, 0x3c, 0xbe, 0x7b, 0x7c, 0xfc, 0x04]);
        let (tiny, inf) = (2_f32.powi(-16), f32::INFINITY);
        assert_eq!(found, [0.0, tiny, 1.0, -1.5, 57344.0, inf, -inf, 4.0 * tiny]);
    }

    #[test]
    fn bytes_must_fill_the_shape() {
        let fits = |shape: &[usize]| Elements::new(Dtype::F32, shape, [0; 8][..].into()).is_ok();
        assert!(fits(&[2]) && fits(&[1, 2, 1]));
        assert!(!fits(&[3]) && !fits(&[0, 2]) && !fits(&[usize::MAX, 2]));
        assert!(Elements::new(Dtype::F32, &[0, usize::MAX, 4], [][..].into()).is_err());
    }

    #[test]
    #[should_panic = "no floating dtype"]
    fn integers_are_not_taken_for_floats() {
        elements(Dtype::I64, &[[0; 8]]).fill_f32(0..1, &mut [0.0]);
    }
}
