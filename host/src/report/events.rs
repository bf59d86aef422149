//! TensorBoard's event files, record by record.
//!
//! ```text
//! record   u64 length | u32 masked CRC-32C of the length | Event | u32 masked CRC-32C of the event
//! Event    1: wall time (double)  2: step  3: version (text)  5: Summary  7: SessionLog
//! Summary  1: Value, repeated;  Value  1: tag  2: number (float)  4: Image
//! Image    1: height  2: width  3: colour channels  4: PNG
//! ```
//! Integers are little-endian; messages are protocol buffers. Sources: `tensorboard/compat/proto`
//! (`event.proto`, `summary.proto`) and `record_writer.py` of `tensorflow/tensorboard`. The crates
//! that write these files bring a protocol buffer compiler's run time for these five messages.

use std::time::{SystemTime, UNIX_EPOCH};

use crc::{CRC_32_ISCSI, Crc};

const CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The first record of a file.
pub(crate) fn version() -> Vec<u8> {
    record(0, &bytes(3, b"brain.Event:2"))
}

/// The start of a run that goes on at `step`: what older files hold from there on is not shown.
pub(crate) fn start(step: u64) -> Vec<u8> {
    const START: u64 = 1;
    record(step, &bytes(7, &varint(1, START)))
}

/// Numbers at a step.
pub(crate) fn scalars(step: u64, values: &[(&str, f64)]) -> Vec<u8> {
    let value = |(tag, number): &(&str, f64)| {
        #[expect(clippy::cast_possible_truncation, reason = "TensorBoard keeps floats")]
        let number = (*number as f32).to_le_bytes();
        bytes(1, &[bytes(1, tag.as_bytes()), key(2, 5), number.to_vec()].concat())
    };
    record(step, &bytes(5, &values.iter().flat_map(value).collect::<Vec<u8>>()))
}

/// A picture at a step: its PNG, width, height, and colour channels (1 or 3).
pub(crate) fn image(step: u64, tag: &str, png: &[u8], size: [u64; 3]) -> Vec<u8> {
    let [width, height, channels] = size;
    let image = [varint(1, height), varint(2, width), varint(3, channels), bytes(4, png)].concat();
    record(step, &bytes(5, &bytes(1, &[bytes(1, tag.as_bytes()), bytes(4, &image)].concat())))
}

/// An event at the present time, framed.
fn record(step: u64, what: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    frame(&[&key(1, 1)[..], &now.to_le_bytes(), &varint(2, step), what].concat())
}

fn frame(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let sum = |bytes: &[u8]| masked(CASTAGNOLI.checksum(bytes)).to_le_bytes();
    [&length[..], &sum(&length), event, &sum(event)].concat()
}

/// A checksum that may itself lie in checked bytes.
fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A field's number and wire type.
fn key(field: u64, wire: u64) -> Vec<u8> {
    base128(field << 3 | wire)
}

fn varint(field: u64, value: u64) -> Vec<u8> {
    [key(field, 0), base128(value)].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [&key(field, 2)[..], &base128(value.len() as u64), value].concat()
}

/// Seven bits in a byte, lowest first; the top bit says that more follow.
fn base128(mut value: u64) -> Vec<u8> {
    let mut digits = Vec::new();
    while value >= 128 {
        digits.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    digits.push(value.to_le_bytes()[0]);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_framed_by_its_checksums() {
        // The first record of a file that TensorBoard's own writer made.
        let event = b"\t\x00\x00\x80\xa9u\xe6\xd9A\x1a\rbrain.Event:2";
        let framed = frame(event);
        assert_eq!(framed[..8], [24, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(framed[8..12], [0xa3, 0x7f, 0x4b, 0x22]);
        assert_eq!(framed[12..36], event[..]);
        assert_eq!(framed[36..], [0x24, 0x26, 0x29, 0x4b]);
    }

    #[test]
    fn checksums_are_masked_crc32c() {
        assert_eq!(CASTAGNOLI.checksum(b"123456789"), 0xe306_9283);
        assert_eq!(masked(0x0001_8000), 0xa282_ead8 + 0x0000_0003);
    }

    #[test]
    fn fields_are_protocol_buffers() {
        assert_eq!(base128(300), [0xac, 0x02]);
        assert_eq!(varint(2, 300), [0x10, 0xac, 0x02]);
        assert_eq!(bytes(1, b"ab"), [0x0a, 2, b'a', b'b']);
        let event = scalars(5, &[("loss", 0.5)]);
        let body = &event[12..event.len() - 4];
        assert_eq!(body[0], 0x09);
        let summary = [0x0a, 11, 0x0a, 4, b'l', b'o', b's', b's', 0x15, 0, 0, 0, 0x3f];
        assert_eq!(body[9..], [&[0x10, 5, 0x2a, 13][..], &summary].concat());
    }
}
