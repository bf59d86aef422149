//! An image's values as text.

use crate::board;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Prints the values bit by bit: a line of `image` and eight hexadecimal digits a value for each row.
pub fn print(image: &[f32], width: usize) {
    for row in image.chunks(width) {
        board::print(b"image ");
        for value in row {
            let digit = |i| DIGITS[(value.to_bits() >> (28 - 4 * i)) as usize & 15];
            board::print(&core::array::from_fn::<u8, 8, _>(digit));
        }
        board::print(b"\n");
    }
}
