//! A state dict into its quantized form, tensor by tensor: packed bytes, values, and the error
//! made. No more than one tensor is held at a time.

mod abs_histogram;
mod allocate;
mod calibrate;
mod device;
mod feedback;
mod named_tensors;
mod net;
mod recommended;
mod report;
mod sink;
mod stream;
mod tensor;
mod torch;

pub use allocate::{Allocation, Budget, allocate, allocation_steps, widths};
pub use calibrate::{Calibration, calibrate};
pub use device::{PackedNet, SelfTestForm};
pub use feedback::quantize_with_feedback;
pub use named_tensors::NamedTensors;
pub use net::QuantizedNet;
pub use recommended::is_sensitive;
pub use report::{Report, TensorReport};
pub use sink::{Discard, quantize_in_memory, quantize_to_file};
pub use stream::{PackedModel, quantize};
pub(crate) use tensor::pack_tensor;
pub use tensor::{PackedTensor, TensorPolicy};
pub use torch::quantize_to_torch;

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use quant_core::bits::Bits;
    use quant_core::format::Model;
    use quant_core::quantize::QuantizeOptions;
    use quant_core::scheme::Scheme;

    use super::*;

    fn state_dict() -> Vec<(String, Tensor)> {
        let ramp: Vec<f32> = (0..72).map(|i| (i as f32 * 0.7).sin()).collect();
        let weight = Tensor::from_vec(ramp, (4, 2, 3, 3), &Device::Cpu).unwrap();
        let bias = Tensor::new(&[0.5f32, -0.25, 0.125, 3.0], &Device::Cpu).unwrap();
        let steps = Tensor::new(&[7i64], &Device::Cpu).unwrap();
        vec![("a.weight".into(), weight), ("a.bias".into(), bias), ("steps".into(), steps)]
    }

    fn options(bits: u8) -> TensorPolicy {
        TensorPolicy::Quantize(QuantizeOptions::new(Scheme::LloydMax, Bits::new(bits).unwrap()))
    }

    #[test]
    fn the_packed_file_holds_the_values_that_are_reported() {
        let dict = state_dict();
        let mut seen = Vec::new();
        let packed = quantize(
            &dict[..],
            &[1, 0, 2],
            None,
            Vec::new(),
            |name, _| if name == "a.bias" { TensorPolicy::F16 } else { options(2) },
            |info, packed| {
                seen.push((info.name.clone(), packed.tensor(&info.shape)?));
                Ok(())
            },
        )
        .unwrap();
        let PackedModel { mut sink, head, report } = packed;
        sink[..head.len()].copy_from_slice(&head);
        let model = Model::parse(&sink).unwrap();
        for ((name, tensor), stored) in seen.iter().zip(model.tensors()) {
            assert_eq!(stored.name(), name);
            if name == "steps" {
                assert_eq!(stored.integers().unwrap().collect::<Vec<_>>(), [7]);
                continue;
            }
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (row, expected) in values.chunks(stored.row_len()).enumerate() {
                let mut read = vec![0.0; expected.len()];
                stored.decode_row(row, &mut read).unwrap();
                assert_eq!(read, expected);
            }
        }
        assert_eq!((report.parameters, report.quantized_parameters), (76, 72));
        assert!(report.sqnr_db.unwrap() > 6.0 && report.tensors[2].scheme == "i64");
        assert!(report.entropy_bits.unwrap() <= 2.0 && report.tensors[0].entropy_bits.is_none());
    }

    #[test]
    fn sizes_are_those_of_the_file() {
        let (file, report) = quantize_in_memory(&state_dict(), None, |_, _| options(3)).unwrap();
        let model = Model::parse(&file).unwrap();
        let mut sum = model.header_bytes();
        for (row, stored) in report.tensors.iter().zip(model.tensors()) {
            let bits = 8.0 * stored.record_bytes() as f64 / stored.numel() as f64;
            assert!((row.bits_per_weight - bits).abs() < 1e-12, "{}", row.name);
            sum += stored.record_bytes();
        }
        assert_eq!((sum, report.packed_bytes), (file.len(), file.len() as u64));
    }

    #[test]
    fn more_bits_mean_less_error() {
        let sqnr = |bits| {
            let (_, report) =
                quantize_in_memory(&state_dict(), None, |_, _| options(bits)).unwrap();
            report.sqnr_db.unwrap()
        };
        assert!(sqnr(2) < sqnr(3) && sqnr(3) < sqnr(4));
    }

    #[test]
    fn a_nan_is_refused_by_tensor_and_index() {
        let mut tensors = state_dict();
        tensors[1].1 = Tensor::new(&[0.0, f32::NAN], &Device::Cpu).unwrap();
        for policy in [options(4), TensorPolicy::F16] {
            let error = quantize_in_memory(&tensors, None, |_, _| policy).err().unwrap();
            let error = error.to_string();
            assert!(error.contains("a.bias") && error.contains("weight 1 is NaN"), "{error}");
        }
        // What is not quantized is copied.
        let (file, _) = quantize_in_memory(&tensors, None, |_, _| TensorPolicy::F32).unwrap();
        let mut row = [1.0; 2];
        let model = Model::parse(&file).unwrap();
        model.tensors().nth(1).unwrap().decode_row(0, &mut row).unwrap();
        assert!(row[0] == 0.0 && row[1].is_nan());
    }
}
