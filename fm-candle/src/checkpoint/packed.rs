//! Packed files: every tensor decoded to f32 on demand, with the net's configuration.

use ::safetensors::Dtype;
use quant_core::format::{Encoding, Model, Tensor};
use self_cell::self_cell;

use super::entry::TensorEntry;
use super::metadata::NET_KEY;
use crate::mapped::Mapped;
use crate::model::{UNet, config};

/// The parts of a file: its tensors in order.
#[derive(Debug)]
struct FileTensors<'a> {
    model: Model<'a>,
    tensors: Vec<Tensor<'a>>,
}

self_cell!(
    /// A checked file, and its parts, which borrow from it.
    struct Checked {
        owner: Mapped,
        #[covariant]
        dependent: FileTensors,
    }

    impl {Debug}
);

/// Names of a packed file's tensors: those that it stores, or its net's.
///
/// # Errors
///
/// A file that neither stores names nor holds a net whose parameters the tensors are.
pub fn tensor_names(model: &Model<'_>) -> Result<Vec<String>, String> {
    if model.tensors().all(|tensor| !tensor.name().is_empty()) {
        return Ok(model.tensors().map(|tensor| tensor.name().to_string()).collect());
    }
    let net = model.net().ok_or("holds neither names nor a net that has them")?;
    let shapes = UNet::shapes(net).map_err(|e| e.to_string())?;
    Ok(shapes.into_iter().map(|(name, _)| name).collect())
}

/// An opened packed file.
#[derive(Debug)]
pub(super) struct PackedFile {
    file: Checked,
    entries: Vec<TensorEntry>,
    metadata: Vec<(String, String)>,
}

impl PackedFile {
    /// Checks a packed file from end to end.
    ///
    /// # Errors
    ///
    /// Why a file is damaged, or its net makes no sense.
    pub(super) fn open(file: Mapped) -> Result<Self, String> {
        let file = Checked::try_new(file, |file| {
            let model = Model::parse(file)?;
            Ok(FileTensors { tensors: model.tensors().collect(), model })
        });
        let file = file.map_err(|e: quant_core::Error| e.to_string())?;
        let model = &file.borrow_dependent().model;
        let net = model.net();
        net.map(config::check).transpose().map_err(|e| e.to_string())?;
        let names = tensor_names(model)?;
        let metadata =
            net.map(|net| (NET_KEY.to_string(), config::to_json(net))).into_iter().collect();
        let entries = model.tensors().zip(names).map(|(tensor, name)| TensorEntry {
            group: String::new(),
            name,
            dtype: if tensor.encoding() == Encoding::I64 { Dtype::I64 } else { Dtype::F32 },
            shape: tensor.shape().to_vec(),
        });
        Ok(Self { entries: entries.collect(), metadata, file })
    }

    /// The tensor of the entry at `index`.
    pub(super) fn tensor(&self, index: usize) -> Option<&Tensor<'_>> {
        self.file.borrow_dependent().tensors.get(index)
    }

    pub(super) fn entries(&self) -> &[TensorEntry] {
        &self.entries
    }

    pub(super) fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The tensor's values: f32, or i64 as they are.
    pub(super) fn bytes(&self, index: usize) -> Result<Vec<u8>, String> {
        let tensor = self.tensor(index).ok_or("is missing")?;
        if let Some(integers) = tensor.integers() {
            return Ok(integers.flat_map(i64::to_le_bytes).collect());
        }
        let mut bytes = Vec::with_capacity(tensor.numel() * size_of::<f32>());
        let mut row = vec![0.0; tensor.row_len()];
        // As many rows as there are, but none of those without elements.
        for index in 0..tensor.rows().min(tensor.numel()) {
            tensor.decode_row(index, &mut row).map_err(|e| e.to_string())?;
            bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
        }
        Ok(bytes)
    }
}
