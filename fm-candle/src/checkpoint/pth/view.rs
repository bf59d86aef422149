//! Strided views: the place of a tensor's elements in its storage.

use std::borrow::Cow;

use ::safetensors::Dtype;

use super::super::entry::{count, size_of};
use crate::pickle::{Element, Pickle, Rebuild, Value};

/// The place of the elements of a tensor, counted in elements of its storage.
#[derive(Debug)]
pub(super) struct View {
    pub(super) key: String,
    start: usize,
    /// From the first element to after the last, with the gaps between.
    span: usize,
    pub(super) elements: usize,
    /// Per axis; 0 where the axis has one element.
    strides: Vec<usize>,
    /// True where the elements are stored with the other sign.
    pub(super) negated: bool,
}

/// The reason why a tensor has no [`View`].
#[derive(Debug)]
pub(super) enum NoView {
    /// Its description in the file is invalid.
    Damaged(String),
    /// It cannot be a weight.
    LeftOut(String),
}

impl<S: Into<String>> From<S> for NoView {
    fn from(reason: S) -> Self {
        Self::Damaged(reason.into())
    }
}

impl View {
    /// Dtype, shape and place of the tensor that `found` describes, checked against the
    /// storage.
    pub(super) fn check(
        pickle: &Pickle,
        found: Rebuild,
    ) -> Result<(Dtype, Vec<usize>, Self), NoView> {
        let storage = pickle.storage(found.storage).ok_or("it has no storage")?;
        let dtype = match found.element.unwrap_or(storage.element) {
            Element::Common(dtype) => dtype,
            Element::Own(name, _) => {
                return Err(NoView::LeftOut(format!("is {name}, which cannot be a weight")));
            }
        };
        let number = |value| match value {
            Value::Int(number) => usize::try_from(number).ok(),
            _ => None,
        };
        let numbers = |value| -> Option<Vec<_>> {
            pickle.items(value)?.iter().map(|&item| number(item)).collect()
        };
        let start = number(found.offset).ok_or("its offset is no count")?;
        let shape = numbers(found.shape).ok_or("its shape is no list of counts")?;
        let mut strides = numbers(found.stride).ok_or("its strides are no list of counts")?;
        if shape.len() != strides.len() {
            let (rank, given) = (shape.len(), strides.len());
            return Err(format!("{rank} axes, but {given} strides").into());
        }
        let elements = count(&shape).ok_or_else(|| format!("shape {shape:?} overflows"))?;
        let mut span = Some(usize::from(elements > 0));
        for (&size, stride) in shape.iter().zip(&mut strides) {
            match size {
                0 | 1 => *stride = 0,
                _ if elements > 0 => {
                    let reach = stride.checked_mul(size - 1);
                    span = span.and_then(|span| span.checked_add(reach?));
                }
                _ => {}
            }
        }
        let bytes = |count: usize| count.checked_mul(size_of(dtype));
        let end = span.and_then(|span| span.checked_add(start)).and_then(bytes);
        let end = end.filter(|&end| {
            storage.len.checked_mul(storage.element.size()).is_none_or(|held| end <= held)
        });
        match (span, end, bytes(elements)) {
            (Some(span), Some(_), Some(_)) => {
                let (key, negated) = (storage.key.clone(), found.negated);
                Ok((dtype, shape, Self { key, start, span, elements, strides, negated }))
            }
            _ => Err(format!("it reaches past the {} elements of its storage", storage.len).into()),
        }
    }

    /// The first byte in the storage and the number of those spanned, at `size` per element.
    pub(super) fn place(&self, size: usize) -> (u64, u64) {
        ((self.start * size) as u64, (self.span * size) as u64)
    }

    /// The view's elements of `size` bytes each in row-major order, from the bytes that it
    /// spans: all of them as they lie, or gathered.
    pub(super) fn elements<'a>(
        &self,
        spanned: Cow<'a, [u8]>,
        size: usize,
        shape: &[usize],
    ) -> Cow<'a, [u8]> {
        if self.elements == 0 || is_row_major(shape, &self.strides) {
            spanned
        } else {
            Cow::Owned(gather(&spanned, size, shape, &self.strides))
        }
    }

    /// The elements with the sign that the tensor gives them, or back: of numbers of this dtype, in
    /// bytes of the order of a little-endian machine.
    pub(super) fn signed<'a>(&self, dtype: Dtype, bytes: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        if !self.negated {
            return bytes;
        }
        let mut bytes = bytes.into_owned();
        let float = matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64);
        for element in bytes.chunks_exact_mut(size_of(dtype)) {
            if float {
                // The sign is the highest bit.
                element.last_mut().into_iter().for_each(|byte| *byte ^= 0x80);
            } else {
                // Two's complement: all bits turned over, and one added.
                let mut carry = true;
                for byte in element {
                    (*byte, carry) = (!*byte).overflowing_add(carry.into());
                }
            }
        }
        bytes.into()
    }

    /// Returns true if the elements lie one after the other in their storage, in row-major order.
    pub(super) fn is_plain(&self, shape: &[usize]) -> bool {
        is_row_major(shape, &self.strides)
    }

    /// The indices of the elements in the storage, in row-major order; the view is not empty.
    pub(super) fn places(&self, shape: &[usize]) -> impl Iterator<Item = usize> {
        places(shape, &self.strides).map(|place| self.start + place)
    }
}

/// Returns true if the elements lie one after the other, the last axis fastest.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size <= 1 || stride == expected;
        expected *= size.max(1);
        fits
    })
}

/// The elements of a strided view, `size` bytes each, in row-major order; no axis is empty.
fn gather(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let mut gathered = Vec::with_capacity(shape.iter().product::<usize>() * size);
    for place in places(shape, strides) {
        gathered.extend_from_slice(&bytes[place * size..][..size]);
    }
    gathered
}

/// The indices of the elements of a strided view, in row-major order, counted from the first.
fn places(shape: &[usize], strides: &[usize]) -> impl Iterator<Item = usize> {
    let mut indices = vec![0; shape.len()];
    let mut next = 0;
    (0..shape.iter().product()).map(move |_: usize| {
        let place = next;
        // Counts on like an odometer, the last axis fastest.
        for ((index, &len), &stride) in indices.iter_mut().zip(shape).zip(strides).rev() {
            *index += 1;
            next += stride;
            if *index < len {
                break;
            }
            *index = 0;
            next -= len * stride;
        }
        place
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_a_transposed_view() {
        // [[0, 1, 2], [3, 4, 5]] seen as [3, 2], of one byte and of two bytes per element.
        assert_eq!(gather(&[0, 1, 2, 3, 4, 5], 1, &[3, 2], &[1, 3]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(gather(&[0, 9, 1, 9, 2, 9], 2, &[2], &[2]), [0, 9, 2, 9]);
        assert_eq!(gather(&[7, 8], 1, &[2, 2], &[0, 1]), [7, 8, 7, 8]);
    }

    #[test]
    fn a_negated_view_turns_signs_and_back() {
        let view = View {
            key: String::new(),
            start: 0,
            span: 2,
            elements: 2,
            strides: vec![1],
            negated: true,
        };
        let halves = [0x00, 0x3c, 0x00, 0x80];
        assert_eq!(view.signed(Dtype::F16, halves[..].into()), &[0x00, 0xbc, 0x00, 0x00][..]);
        let integers = [1_i32, i32::MIN, -256].map(i32::to_le_bytes).concat();
        let turned = [-1_i32, i32::MIN, 256].map(i32::to_le_bytes).concat();
        assert_eq!(view.signed(Dtype::I32, integers.as_slice().into()), turned);
        assert_eq!(view.signed(Dtype::I32, turned.into()), integers);
    }

    #[test]
    fn tells_row_major_order_apart() {
        assert!(is_row_major(&[], &[]));
        assert!(is_row_major(&[2, 1, 3], &[3, 0, 1]));
        assert!(!is_row_major(&[3, 2], &[1, 3]));
        assert!(!is_row_major(&[2, 3], &[0, 1]));
    }
}
