//! The boards that a project can be for, as QEMU emulates them.

use clap::ValueEnum;

/// A board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Board {
    #[value(name = "mps2-an386", help = "Cortex-M4F")]
    Mps2An386,
    #[value(name = "mps2-an500", help = "Cortex-M7")]
    Mps2An500,
    // QEMU has no Cortex-M0+ with so much memory.
    #[value(name = "mps2-an385", help = "code for a Cortex-M0+, on a Cortex-M3")]
    Mps2An385,
}

/// Start and length of a memory.
pub(crate) type Memory = (usize, usize);

/// The program's part of the boards' lower memory; all have 4 MiB at 0 and 4 MiB at 2^29.
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
            Self::Mps2An385 => "mps2-an385",
        }
    }

    /// Rust's target.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::Mps2An386 | Self::Mps2An500 => "thumbv7em-none-eabihf",
            Self::Mps2An385 => "thumbv6m-none-eabi",
        }
    }

    /// The C compiler's flags for the CPU and its floating-point unit.
    pub(crate) const fn cpu(self) -> &'static str {
        match self {
            Self::Mps2An386 => "-mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16",
            Self::Mps2An500 => "-mcpu=cortex-m7 -mfloat-abi=hard -mfpu=fpv5-sp-d16",
            Self::Mps2An385 => "-mcpu=cortex-m0plus -mfloat-abi=soft",
        }
    }
}
