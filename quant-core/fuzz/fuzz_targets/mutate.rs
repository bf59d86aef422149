#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use quant_core::format::Model;
use quant_core_fuzz::{Spec, file_of, fix_up, read_everything};

/// Tensors, and what is done to their file.
#[derive(Arbitrary, Debug)]
struct Input {
    tensors: Vec<Spec>,
    edits: Vec<Edit>,
}

#[derive(Arbitrary, Debug)]
enum Edit {
    /// A byte of the header or of the tables behind it.
    Head(u8, u8),
    /// A byte anywhere.
    Byte(u16, u8),
    /// A number of four bytes.
    Word(u16, u32),
    /// A cut.
    Truncate(u16),
    /// More bytes.
    Extend(u8),
    /// A part written over another.
    Copy(u16, u16, u8),
}

fuzz_target!(|input: Input| {
    let specs = input.tensors.iter().take(6);
    let tensors: Vec<_> = specs.filter_map(Spec::quantize).collect();
    let mut file = file_of(&tensors);
    for edit in &input.edits {
        let len = file.len();
        match *edit {
            Edit::Head(at, byte) if len > 0 => file[usize::from(at) % len] = byte,
            Edit::Byte(at, byte) if len > 0 => file[usize::from(at) % len] = byte,
            Edit::Word(at, word) if len >= 4 => {
                let at = usize::from(at) % (len - 3);
                file[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
            Edit::Truncate(to) => file.truncate(usize::from(to)),
            Edit::Extend(by) => file.resize(len + usize::from(by), by),
            Edit::Copy(from, to, n) if len > 0 => {
                let (from, to) = (usize::from(from) % len, usize::from(to) % len);
                let n = usize::from(n).min(len - from).min(len - to);
                file.copy_within(from..from + n, to);
            }
            _ => {}
        }
    }
    fix_up(&mut file);
    if let Ok(model) = Model::parse(&file) {
        read_everything(&model, file.len());
    }
});
