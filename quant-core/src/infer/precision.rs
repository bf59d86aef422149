//! The arithmetic of a net, as a value.

/// The arithmetic of a net, where a program chooses when it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Floats.
    #[default]
    Float,
    /// Maps of bytes, and convolutions of integers, as the file's [`Activations`](crate::format::Activations) scale them: a
    /// quarter of the memory for maps, and fewer instructions.
    Integer,
}
