//! An image as text.

use crate::chip;

/// From black to white.
const RAMP: &[u8; 10] = b" .:-=+*#%@";
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Prints an image of one channel, two rows of pixels a line: a character is twice as high as wide.
///
/// # Shapes
/// `image`: rows of `width`, -1 is black and 1 white.
pub fn print(image: &[f32], width: usize) {
    for rows in image.chunks(2 * width) {
        let (above, below) = rows.split_at(width.min(rows.len()));
        for (&a, &b) in above.iter().zip(below) {
            let shade = (a + b + 2.0) / 4.0 * RAMP.len() as f32;
            // A cast stops at the bounds of its type.
            chip::print(&[RAMP[usize::from(shade as u8).min(RAMP.len() - 1)]]);
        }
        chip::print(b"\n");
    }
}

/// Prints the values bit by bit: a line of `image` and eight hexadecimal digits a value for each row.
pub fn print_bits(image: &[f32], width: usize) {
    for row in image.chunks(width) {
        chip::print(b"image ");
        for value in row {
            let digit = |i| DIGITS[(value.to_bits() >> (28 - 4 * i)) as usize & 15];
            chip::print(&core::array::from_fn::<u8, 8, _>(digit));
        }
        chip::print(b"\n");
    }
}
