//! An image as text.

use crate::board;

/// From black to white.
const RAMP: &[u8; 10] = b" .:-=+*#%@";

/// Prints an image as the mean of its channels, two rows of pixels a line: a character is twice as high
/// as wide.
///
/// # Shapes
/// `image`: `[channels, height, width]`, -1 is black and 1 white.
pub fn print(image: &[f32], (height, width): (usize, usize)) {
    let channels = image.chunks(height * width);
    for y in (1..height).step_by(2) {
        for x in 0..width {
            let pair = |channel: &[f32]| channel[(y - 1) * width + x] + channel[y * width + x];
            let sum: f32 = channels.clone().map(pair).sum();
            let shade = (sum / (2 * channels.len()) as f32 + 1.0) / 2.0 * RAMP.len() as f32;
            // A cast stops at the bounds of its type.
            board::print(&[RAMP[usize::from(shade as u8).min(RAMP.len() - 1)]]);
        }
        board::print(b"\n");
    }
}
