#!/usr/bin/env bash
# What a change must pass; stops at the first failure.
#
#   ./ci.sh          all parts but `deep`
#   ./ci.sh PART...  these parts
#
# lint       format and lints
# core       quant-core alone: other targets, its tests, its header for C, the NEON kernels
# docs       the documentation
# chip       the programs for the chip: built, linked without a panic, run in an emulator
# workspace  all tests, those of a browser and a GPU too, and each bench once
# mpi        training in several processes, a build of its own, which needs the MPI library
# deep       the oldest compilers, Miri, fuzzing, licences, packages: some 20 minutes
#
# Two builds of the dependencies: checked (clippy, docs) and compiled (tests, benches), both in
# the dev profile. The chips' builds compile quant-core and its four small dependencies only.
#
# FMQ_FIRMWARE_CARGO  the cargo command that builds for the chip, where it is not `cargo`
# FMQ_ALLOW_SKIP=1    go on without the chip's builds where its core library cannot be had
#
# What else cannot be had here is left out. The last line counts and names what was not run.
set -euo pipefail
cd "$(dirname "$0")"

chip=thumbv7em-none-eabihf
small="thumbv6m-none-eabi thumbv7m-none-eabi"
arm=aarch64-unknown-linux-musl
others="$small thumbv8m.main-none-eabihf riscv32imac-unknown-none-elf wasm32-unknown-unknown $arm"
read -ra firmware <<<"${FMQ_FIRMWARE_CARGO:-cargo}"
records=$(mktemp -d)
trap 'rm -r "$records"' EXIT
touch "$records"/{tests,not_run}

step() {
    printf '\n[%3d s] %s\n' "$SECONDS" "$*"
    "$@"
}

# A step of `cargo test`, whose results are kept for the last line.
tests() {
    step cargo test --locked "$@" | tee -a "$records/tests"
}

not_run() {
    echo "$*" >>"$records/not_run"
}

# What was not run: as the parts said, and each ignored test that none of them ran by name.
list_not_run() {
    sort -u "$records/not_run"
    awk '/^test .* \.\.\. ok$/ { ran[$2] }
        /^test .* \.\.\. ignored/ && !/ignored, writes / {
            name = $2; sub(/.*ignored,? ?/, ""); ignored[name] = $0
        }
        END { for (name in ignored) if (!(name in ran)) print name " (" ignored[name] ")" }' \
        "$records/tests" | sort
}

has() {
    local tool
    for tool; do command -v "$tool" >/dev/null || return 1; done
}

# The first Python that has numpy.
python_with_numpy() {
    local python
    for python in python3 /usr/bin/python3; do
        ! "$python" -c 'import numpy' 2>/dev/null || { echo "$python" && return; }
    done
    return 1
}

# Notes the vector instructions that this CPU lacks, without which the tests of their kernels run nothing.
note_lacking() {
    local feature
    for feature; do
        rustc --print cfg -C target-cpu=native | grep "\"$feature\"" >/dev/null ||
            not_run "the kernels in $feature (need a CPU that has it)"
    done
}

# Whether a target's core library is there, or can be fetched now.
target_is_ready() {
    [[ -d $(rustc --print target-libdir --target "$1") ]] || rustup target add "$1"
}

# Whether a compiler is there, or can be fetched now.
toolchain_is_ready() {
    rustup run "$1" rustc --version >/dev/null 2>&1 || rustup toolchain install --profile minimal "$1"
}

lint() {
    local features
    step cargo fmt --all --check
    step cargo fmt --all --check --manifest-path tests/firmware/Cargo.toml
    for features in "" alloc capi-float capi-integer alloc,capi,serde; do
        step cargo clippy --locked -p quant-core --all-targets --features "$features" -- -D warnings
    done
    step cargo clippy --locked --workspace --all-targets -- -D warnings
}

core() {
    local target
    for target in $others; do
        if target_is_ready "$target"; then
            step cargo build --locked -p quant-core --target "$target"
        else
            not_run "the build for $target (rustup target add $target)"
        fi
    done
    tests -p quant-core
    tests -p quant-core --features alloc,capi --lib capi
    step cargo run --locked -p quant-core --features alloc --example pack_tensor
    step cargo run --locked -p quant-core --features std --example draw -- host/assets/mnist-micro-tuned-2.fmq 7
    note_lacking avx2 avx512vbmi

    # The header for C is what the functions are.
    if has cbindgen; then
        step env -C quant-core cbindgen --quiet --verify --config cbindgen.toml --output include/fmq.h src/capi/mod.rs
    else
        not_run "the comparison of quant-core/include/fmq.h (needs cargo install cbindgen)"
    fi

    # rust-lld comes with Rust and links without a C compiler.
    if has qemu-aarch64 && target_is_ready "$arm"; then
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
            CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER=qemu-aarch64 \
            tests -p quant-core --features std --target "$arm" --lib -- kernels packing
    else
        not_run "the NEON kernels (need Debian's qemu-user, rustup target add $arm)"
    fi
}

docs() {
    RUSTDOCFLAGS=-Dwarnings step cargo doc --locked --workspace --no-deps
}

chip() {
    local features target chips
    if [[ -z ${FMQ_FIRMWARE_CARGO:-} ]] && ! target_is_ready "$chip"; then
        if [[ -z ${FMQ_ALLOW_SKIP:-} ]]; then
            echo "error: no core library for $chip: install it (rustup target add $chip)," \
                "or set FMQ_ALLOW_SKIP=1 to go on without these builds" >&2
            exit 1
        fi
        not_run "the builds for $chip and their tests (need rustup target add $chip)"
        return
    fi
    # Alone, because a build of the workspace unites features and so turns `std` on; and with
    # `build`, because the dev-dependencies of a test may hide a missing feature.
    for features in "" alloc; do
        step "${firmware[@]}" build --locked -p quant-core --target "$chip" --features "$features"
    done
    if [[ -n ${FMQ_FIRMWARE_CARGO:-} ]]; then
        not_run "the link without a panic, the firmware in an emulator (need rustup target add $chip)"
        return
    fi
    # One program links only if no input can make the reader of packed files panic; the others draw
    # digits, which the suite `firmware` compares with the host's. All take Rust's own core, which
    # holds the bitcode that the linker optimizes.
    for target in $chip $small; do
        target_is_ready "$target"
        # The suite looks for it in that place.
        chips=(--locked --release --target "$target" --target-dir target)
        step env -C tests/firmware cargo clippy "${chips[@]}" -- -D warnings
        step env -C tests/firmware cargo build "${chips[@]}"
        step env -C tests/firmware cargo build "${chips[@]}" -p no-panic --features log
    done
    if has qemu-system-arm arm-none-eabi-gcc make; then
        step make -C tests/firmware/c-digit
        tests --workspace --test firmware -- --ignored
        tests --workspace --test cli -- --ignored export::
    else
        not_run "the firmware in an emulator (needs Debian's qemu-system-arm, gcc-arm-none-eabi, make)"
    fi
}

workspace() {
    local example suite python benches=()
    tests --workspace
    note_lacking avx512vnni
    [[ $OSTYPE != msys && $OSTYPE != cygwin ]] || not_run "the tests of the command line (need Unix)"
    [[ -d ${FMQ_REFERENCE-../shared/reference} ]] ||
        not_run "the reference beyond the committed selection (needs FMQ_REFERENCE)"
    # The examples, which `cargo test` has built.
    for example in train_ten_steps distance_of_two_sets quantize_and_inspect; do
        step "${CARGO_TARGET_DIR:-target}/debug/examples/$example"
    done
    # Each bench once, untimed: criterion does so when `cargo test` runs it.
    for suite in benches/suites/*.rs; do
        [[ $suite == */cuda.rs ]] || benches+=(--bench "$(basename "$suite" .rs)")
    done
    tests --workspace "${benches[@]}"
    if python=$(python_with_numpy); then
        FMQ_PYTHON=$python tests --workspace --test cli -- --ignored read_fmq::
    fi
    if has "${FMQ_CHROMIUM:-chromium}" || has chromium-browser || has google-chrome; then
        tests --workspace --test cli -- --ignored report::
    fi
    if has nvidia-smi nvcc; then
        tests -p fmq-tests --features cuda --test cuda_parity -- --ignored
        tests -p fm-candle --features cuda --lib -- --ignored ops::cuda::
    else
        not_run "the suite cuda_parity and the GPU's kernels (need an NVIDIA GPU and CUDA's nvcc)"
    fi
}

mpi() {
    if ! has mpirun mpicc; then
        not_run "training in several processes (docs/distributed.md says what it needs)"
        return
    fi
    step cargo clippy --locked -p fm-candle -p fmq-cli --features mpi --all-targets -- -D warnings
    RUSTDOCFLAGS=-Dwarnings step cargo doc --locked -p fm-candle --features mpi --no-deps
    tests -p fmq-cli --features mpi --test mpi
}

deep() {
    local manifest oldest packages target corpora
    for manifest in quant-core/Cargo.toml Cargo.toml; do
        oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$manifest")
        packages=(--workspace --all-targets)
        [[ $manifest == Cargo.toml ]] || packages=(-p quant-core --features alloc,capi,serde)
        if toolchain_is_ready "$oldest"; then
            step cargo "+$oldest" check --locked "${packages[@]}"
        else
            not_run "Rust $oldest (needs rustup toolchain install $oldest)"
        fi
    done

    # As on a big-endian machine, where libm is Rust alone; property tests read a file of failures.
    if cargo +nightly miri --version >/dev/null 2>&1 ||
        rustup toolchain install nightly --profile minimal --component miri,rust-src; then
        MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=8 \
            step cargo +nightly miri test --locked -p quant-core --features alloc \
            --target s390x-unknown-linux-gnu --lib -- format packing
    else
        not_run "Miri (needs rustup toolchain install nightly --component miri,rust-src)"
    fi

    if toolchain_is_ready nightly && has cargo-fuzz; then
        for target in $(env -C quant-core cargo +nightly fuzz list); do
            corpora=("fuzz/corpus/$target")
            mkdir -p "quant-core/${corpora[0]}"
            [[ ! -d quant-core/fuzz/seeds/$target ]] || corpora+=("fuzz/seeds/$target")
            step env -C quant-core cargo +nightly fuzz run "$target" "${corpora[@]}" -- -max_total_time=60
        done
    else
        not_run "fuzzing (needs cargo install cargo-fuzz, and a nightly compiler)"
    fi

    if has cargo-deny; then
        step cargo deny --locked check bans licenses sources
        if cargo deny --locked fetch db; then
            step cargo deny --locked check --disable-fetch advisories
        else
            not_run "advisories (need their database from the network)"
        fi
    else
        not_run "licences and advisories (need cargo install cargo-deny)"
    fi

    step cargo publish --locked --workspace --dry-run
}

[[ $# -gt 0 ]] || set -- lint core docs chip workspace mpi
for part; do
    case $part in
    lint | core | docs | chip | workspace | mpi | deep) ;;
    *)
        echo "error: no part $part: lint, core, docs, chip, workspace, mpi or deep" >&2
        exit 2
        ;;
    esac
done
for part; do "$part"; done

list_not_run >"$records/all"
printf '\n[%3d s] all passed' "$SECONDS"
count=$(grep -c . "$records/all" || true)
[[ $count == 0 ]] || printf '; %d NOT run: %s' "$count" "$(paste -s -d ';' "$records/all" | sed 's/;/; /g')"
printf '\n'
