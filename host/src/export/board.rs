//! The boards that a project can be for, as QEMU emulates them.

use clap::ValueEnum;

/// A board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Board {
    #[value(name = "mps2-an386", help = "Cortex-M4F")]
    Mps2An386,
    #[value(name = "mps2-an500", help = "Cortex-M7")]
    Mps2An500,
}

/// Start and length of a memory.
pub(crate) type Memory = (usize, usize);

/// The program's part of the boards' lower memory; both have 4 MiB at 0 and 4 MiB at 2^29.
pub(crate) const FLASH: Memory = (0, 1 << 20);
/// The model's part.
pub(crate) const MODEL: Memory = (1 << 20, 3 << 20);
pub(crate) const RAM: Memory = (0x2000_0000, 4 << 20);

impl Board {
    /// QEMU's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mps2An386 => "mps2-an386",
            Self::Mps2An500 => "mps2-an500",
        }
    }

    /// Rust's target.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::Mps2An386 | Self::Mps2An500 => "thumbv7em-none-eabihf",
        }
    }

    /// The C compiler's CPU and floating-point unit.
    pub(crate) const fn cpu(self) -> [&'static str; 2] {
        match self {
            Self::Mps2An386 => ["cortex-m4", "fpv4-sp-d16"],
            Self::Mps2An500 => ["cortex-m7", "fpv5-sp-d16"],
        }
    }
}
