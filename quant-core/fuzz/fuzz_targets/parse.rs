#![no_main]

use libfuzzer_sys::fuzz_target;
use quant_core::format::Model;
use quant_core_fuzz::{fix_up, read_everything};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(model) = Model::parse(bytes) {
        read_everything(&model, bytes.len());
    }
    // Checksums would end nearly every input at the door.
    let mut repaired = bytes.to_vec();
    fix_up(&mut repaired);
    if let Ok(model) = Model::parse(&repaired) {
        read_everything(&model, repaired.len());
    }
});
