//! The program `fmq`.

use std::process::ExitCode;

/// Tensors come and go by the megabyte; the system's allocator returns their pages each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fmq::main()
}
