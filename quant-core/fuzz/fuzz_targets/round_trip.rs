#![no_main]

use libfuzzer_sys::fuzz_target;
use quant_core::format::Model;
use quant_core_fuzz::{Spec, file_of, read_everything};

fuzz_target!(|specs: Vec<Spec>| {
    let tensors: Vec<_> = specs.iter().take(8).filter_map(Spec::quantize).collect();
    let file = file_of(&tensors);
    let model = Model::parse(&file).expect("what is written can be read");
    read_everything(&model, file.len());
    for (tensor, read) in tensors.iter().zip(model.tensors()) {
        assert_eq!(read.shape(), tensor.shape());
        let values = tensor.dequantized();
        let mut row = vec![0.0; read.row_len()];
        for (i, expected) in values.chunks(read.row_len().max(1)).enumerate() {
            read.decode_row(i, &mut row).expect("rows can be read");
            assert!(row.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
});
