#!/usr/bin/env bash
# All figures of docs/results/firmware.md, as Markdown: instructions, memory and code of the embedded net on the
# chips that QEMU emulates, its images in integers beside those in floats, and its layers beside CMSIS-NN's.
#
#   git clone https://github.com/ARM-software/CMSIS-NN
#   benches/firmware.sh CMSIS-NN [FLAGS...]        (flags of the C compiler; -O3)
#
# Without the folder the layers of CMSIS-NN are left out. It takes qemu-system-arm, arm-none-eabi-gcc with newlib,
# and Rust's targets thumbv7em-none-eabihf and thumbv6m-none-eabi. About five minutes.
set -euo pipefail

root=$(realpath "$(dirname "$0")/..")
cmsis=${1:+$(realpath "$1")}
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
firmware=$root/tests/firmware
widths=(2 3 4 8)
class=3 seed=42 steps=16
# A Cortex-M0+ has less memory in QEMU; an M3 has all of its instructions.
m4=(mps2-an386 thumbv7em-none-eabihf) m0=(mps2-an385 thumbv6m-none-eabi)

cargo build --quiet --release --locked --manifest-path "$root/Cargo.toml" -p fmq-cli -p fmq-benches --bins
for target in "${m4[1]}" "${m0[1]}"; do
    cargo build --quiet --release --locked --manifest-path "$firmware/Cargo.toml" --target "$target" \
        --target-dir "$firmware/target"
done
for net in mnist-micro mnist-small; do
    for bits in "${widths[@]}"; do
        file=$work/$net-$bits.fmq
        "$root/target/release/fmq" --quiet quantize "$root/host/assets/$net.safetensors" --scheme lloyd-max \
            --bits "$bits" --granularity auto --golden -o "$file" >/dev/null
        "$root/target/release/fmq" --quiet calibrate "$file" -o "$file" >/dev/null
    done
done

# The tuned nets that the command carries, and full precision to compare them with.
mkdir "$work/tuned"
for bits in 2 3; do
    "$root/target/release/fmq" --quiet calibrate "$root/host/assets/mnist-micro-tuned-$bits.fmq" \
        -o "$work/tuned/mnist-micro-tuned-$bits.fmq" >/dev/null
done
"$root/target/release/fmq" --quiet quantize "$root/host/assets/mnist-micro.safetensors" --scheme ot --bits 8 \
    --keep '*=32' -o "$work/tuned/full.fmq" >/dev/null

# run MACHINE TARGET PROGRAM MODEL WORDS...
run() {
    local machine=$1 program=$firmware/target/$2/release/$3 model=$4 words=enable=on,target=native,chardev=console
    for word in "$3" "${@:5}"; do words+=,arg=$word; done
    qemu-system-arm -M "$machine" -nographic -monitor none -serial none -icount shift=8,sleep=off \
        -chardev stdio,id=console -semihosting-config "$words" \
        -device "loader,file=$model,addr=0x100000,force-raw=on" -kernel "$program" </dev/null
}

echo "$(rustc --version), $(qemu-system-arm --version | head -1)"

# digits TITLE MACHINE TARGET WORDS...
digits() {
    printf '\n%s\n\n| bits | model in flash | arena | stack | instructions a sample | per multiplication |\n' "$1"
    echo '|---|---|---|---|---|---|'
    for bits in "${widths[@]}"; do
        run "$2" "$3" digit "$work/mnist-micro-$bits.fmq" "$class" "$seed" "$steps" "${@:4}" |
            awk -v bits="$bits" -v flash="$(stat -c %s "$work/mnist-micro-$bits.fmq")" '
                /^error/ { print; exit 1 }
                /^(arena|stack|macs|instructions) / { said[$1] = $2 }
                END {
                    printf "| %d | %d B | %d B | %d B | %s | %.2f |\n", bits, flash, said["arena"],
                        said["stack"], said["instructions"] "", said["instructions"] / said["macs"]
                }'
    done
}
digits "Cortex-M4, floats" "${m4[@]}"
digits "Cortex-M4, integers" "${m4[@]}" integer
digits "Cortex-M0+, integers" "${m0[@]}" integer

# By themselves: beside other programs of the workspace they would have quant-core with the features of those.
printf '\n| program | code and constants |\n|---|---|\n'
for target in "${m4[1]}" "${m0[1]}"; do
    cargo build --quiet --release --locked --manifest-path "$firmware/Cargo.toml" --target "$target" -p digit \
        --target-dir "$work/alone"
    for program in floats integers digit; do
        arm-none-eabi-size -A "$work/alone/$target/release/$program" |
            awk -v what="$program, $target" '$1 ~ /vector_table|text|rodata|data/ { sum += $2 }
                END { printf "| `%s` | %d B |\n", what, sum }'
    done
done

printf '\nImages of integers beside those of floats, 100 each:\n\n```text\n'
"$root/target/release/integers" 100 "$work"/*.fmq | sed "s|$work/||"
echo '```'
printf '\nImages of integers beside those of full precision in floats, 100 each:\n\n```text\n'
"$root/target/release/integers" 100 --to "$work/tuned/full.fmq" "$work"/mnist-micro-[23].fmq \
    "$work"/tuned/mnist-micro-tuned-*.fmq | sed "s|$work/||"
echo '```'
printf '\nClass 7, seed 42, tuned at 2 bits, integers:\n\n```text\n'
run "${m4[@]}" digit "$work/tuned/mnist-micro-tuned-2.fmq" 7 42 "$steps" integer
echo '```'

# A line for each layer: who, side, channels from and to, kernel, instructions, multiplications, bytes in flash.
for bits in "${widths[@]}"; do
    for chip in m4 m0; do
        declare -n on=$chip
        run "${on[@]}" layers "$work/mnist-micro-$bits.fmq" |
            awk -v who="$chip-$bits" '{ print who, $1, $2, $3, $4, $6, $5, $7 + $8 }'
    done
done >"$work/layers"
# cmsis CHIP CPU FLAGS...
cmsis() {
    # A bias, a multiplier and a shift of four bytes for each channel.
    "$root/benches/peers/cmsis_nn.sh" "$cmsis" "${@:2}" | awk -v chip="$1" '{
        weights = $5 * $7 * $9 * $9
        print chip "-" $1, $3, $5, $7, $9, $13, $3 * $3 * weights, weights * substr($1, 2) / 8 + 12 * $7
    }'
}
if [[ -n $cmsis ]]; then
    cmsis m4 cortex-m4 "${@:2}" >>"$work/layers"
    cmsis m0 cortex-m0plus "${@:2}" >>"$work/layers"
fi
awk '
    { at = $2 " x " $2 ", " $3 " to " $4 ", " $5 " x " $5; whos[$1]; pace[at, $1] = $6 / $7; bytes[at, $1] = $8 }
    !(at in seen) { seen[at]; order[++count] = at }
    # Over the s8 of the same chip where that is there.
    function table(title, chip, values,    i, j, n, forms, peer, who, value) {
        n = split("2 3 4 8 s8 s4", forms, " ")
        peer = chip "-s8"
        printf "\n%s\n\n| layer |", title
        for (j = 1; j <= n; j++) if (chip "-" forms[j] in whos) printf " %s |", forms[j] (j > 4 ? "" : " bits")
        printf "\n|---|"
        for (j = 1; j <= n; j++) if (chip "-" forms[j] in whos) printf "---|"
        for (i = 1; i <= count; i++) {
            printf "\n| %s |", order[i]
            for (j = 1; j <= n; j++) {
                who = chip "-" forms[j]
                if (!(who in whos)) continue
                value = values == "pace" ? pace[order[i], who] : bytes[order[i], who]
                printf values == "pace" ? " %.2f" : " %d", value
                if (peer in whos && who != peer)
                    printf " (%.2f)", value / (values == "pace" ? pace[order[i], peer] : bytes[order[i], peer])
                printf " |"
            }
        }
        print ""
    }
    END {
        table("Instructions per multiplication on a Cortex-M4, and over s8:", "m4", "pace")
        table("Instructions per multiplication as built for a Cortex-M0+, and over s8:", "m0", "pace")
        table("Bytes in flash, and over s8:", "m4", "bytes")
    }' "$work/layers"
