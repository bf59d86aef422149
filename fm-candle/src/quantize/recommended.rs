//! The tensors that are better kept at more bits: few weights, on which much depends.

/// `true` if a tensor of a U-Net of upstream's names is one of those that are usually kept at 16
/// bits: the first and the last convolution, the embeddings of time and label, and every vector
/// (norms and biases). In upstream's nets these are under 5 % of the weights.
///
/// ```
/// # use fm_candle::quantize::is_sensitive;
/// assert!(is_sensitive("input_blocks.0.0.weight", &[128, 3, 3, 3]));
/// assert!(is_sensitive("middle_block.0.in_layers.2.bias", &[256]));
/// assert!(!is_sensitive("middle_block.0.in_layers.2.weight", &[256, 256, 3, 3]));
/// ```
pub fn is_sensitive(name: &str, shape: &[usize]) -> bool {
    let embeds = ["input_blocks.0.", "out.", "time_embed.", "label_emb.", "emb_projection."];
    shape.len() < 2 || embeds.iter().any(|prefix| name.starts_with(prefix))
}
