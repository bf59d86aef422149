#!/usr/bin/env bash
# Everything that a change must pass, cheapest first; stops at the first failure.
#
#   ./ci.sh
#
# Two builds of the dependencies: checked (clippy, docs) and compiled (tests, benches), both in
# the dev profile. The chips' builds compile quant-core and its four small dependencies only.
#
# FMQ_FIRMWARE_CARGO  the cargo command that builds for the chip, where it is not `cargo`
# FMQ_ALLOW_SKIP=1    go on without the chip's builds where its core library cannot be had
#
# Other targets that cannot be had, the tests in an ARM emulator where there is none, and those of
# several processes where there is no mpirun, are left out. The last line says what was left out.
set -euo pipefail
cd "$(dirname "$0")"

chip=thumbv7em-none-eabihf
small="thumbv6m-none-eabi thumbv7m-none-eabi"
arm=aarch64-unknown-linux-musl
others="$small thumbv8m.main-none-eabihf riscv32imac-unknown-none-elf wasm32-unknown-unknown $arm"
read -ra firmware <<<"${FMQ_FIRMWARE_CARGO:-cargo}"
skipped=

step() {
    printf '\n[%3d s] %s\n' "$SECONDS" "$*"
    "$@"
}

# Whether a target's core library is there, or can be fetched now.
target_is_ready() {
    [[ -d $(rustc --print target-libdir --target "$1") ]] || rustup target add "$1"
}

chip_is_ready() {
    [[ -n ${FMQ_FIRMWARE_CARGO:-} ]] || target_is_ready "$chip"
}

# Whether programs for 64-bit ARM can be linked and run here.
arm_is_ready() {
    command -v qemu-aarch64 >/dev/null && target_is_ready "$arm"
}

step cargo fmt --all --check

# Alone, because a build of the workspace unites features and so turns `std` on; and with `build`,
# because the dev-dependencies of a test may hide a missing feature.
if chip_is_ready; then
    for features in "" alloc; do
        step "${firmware[@]}" build --locked -p quant-core --target "$chip" --features "$features"
    done
    # One program links only if no input can make the reader of packed files panic; the other draws
    # digits, which the suite `firmware` below compares with the host's. Both take Rust's own core,
    # which holds the bitcode that the linker optimizes.
    if [[ -z ${FMQ_FIRMWARE_CARGO:-} ]]; then
        step env -C tests/firmware cargo fmt --all --check
        for target in $chip $small; do
            target_is_ready "$target"
            # The suite looks for it in that place.
            chips=(--locked --release --target "$target" --target-dir target)
            step env -C tests/firmware cargo clippy "${chips[@]}" -- -D warnings
            step env -C tests/firmware cargo build "${chips[@]}"
            step env -C tests/firmware cargo build "${chips[@]}" -p no-panic --features log
        done
        if command -v qemu-system-arm >/dev/null && command -v arm-none-eabi-gcc >/dev/null; then
            step make -C tests/firmware/c-digit
            export FMQ_FIRMWARE=required
        else
            skipped+="; the firmware was NOT run (needs Debian's qemu-system-arm and gcc-arm-none-eabi)"
        fi
    else
        skipped+="; the absence of panics was NOT linked; the firmware was NOT run"
    fi
elif [[ -n ${FMQ_ALLOW_SKIP:-} ]]; then
    skipped="; NOT built for $chip"
else
    echo "error: no core library for $chip: install it (rustup target add $chip)," \
        "or set FMQ_ALLOW_SKIP=1 to go on without these builds" >&2
    exit 1
fi

for target in $others; do
    if target_is_ready "$target"; then
        step cargo build --locked -p quant-core --target "$target"
    else
        skipped+="; NOT built for $target"
    fi
done

for features in "" alloc capi-float capi-integer alloc,capi,serde; do
    step cargo clippy --locked -p quant-core --all-targets --features "$features" -- -D warnings
done
step cargo test --locked -p quant-core
step cargo test --locked -p quant-core --features alloc,capi --lib capi

# The header for C is what the functions are.
if command -v cbindgen >/dev/null; then
    step env -C quant-core cbindgen --quiet --verify --config cbindgen.toml --output include/fmq.h src/capi/mod.rs
else
    skipped+="; quant-core/include/fmq.h was NOT compared (needs cargo install cbindgen)"
fi

# The NEON kernels, in an emulator; rust-lld comes with Rust and links without a C compiler.
if arm_is_ready; then
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER=qemu-aarch64 \
        step cargo test --locked -p quant-core --features std --target "$arm" --lib -- kernels packing
else
    skipped+="; the NEON kernels were NOT tested (needs Debian's qemu-user; rustup target add $arm)"
fi

step cargo clippy --locked --workspace --all-targets -- -D warnings
RUSTDOCFLAGS=-Dwarnings step cargo doc --locked --workspace --no-deps
step cargo test --locked --workspace
# Where there is one, a test opens the report of a sweep in it.
command -v "${FMQ_CHROMIUM:-chromium}" >/dev/null ||
    skipped+="; the report was opened in NO browser (needs Debian's chromium)"
# Each bench once, untimed: criterion does so when `cargo test` runs it.
step cargo test --locked -p fmq-benches --benches

# Training in several processes, with a build of its own, which needs the MPI library.
if command -v mpirun >/dev/null && command -v mpicc >/dev/null; then
    step cargo clippy --locked -p fm-candle -p fmq --features mpi --all-targets -- -D warnings
    RUSTDOCFLAGS=-Dwarnings step cargo doc --locked -p fm-candle --features mpi --no-deps
    step cargo test --locked -p fmq --features mpi --test mpi
else
    skipped+="; training in several processes was NOT tested (docs/distributed.md says what it needs)"
fi

printf '\n[%3d s] all passed%s\n' "$SECONDS" "$skipped"
