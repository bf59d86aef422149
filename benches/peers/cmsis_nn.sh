#!/usr/bin/env bash
# Counts the instructions of CMSIS-NN's convolutions (s8 and s4) at the shapes of the embedded nets, on the
# Cortex-M4 that QEMU emulates, or as built for a Cortex-M0+ on an M3: the figures beside ours that
# benches/firmware.sh prints.
#
#   git clone https://github.com/ARM-software/CMSIS-NN
#   benches/peers/cmsis_nn.sh CMSIS-NN cortex-m4|cortex-m0plus [FLAGS...]        (flags of the compiler; -O3)
#
# It takes arm-none-eabi-gcc with newlib and qemu-system-arm. Nothing is written to the checkout.
set -euo pipefail

cmsis=$(realpath "${1:?the folder of CMSIS-NN}")
case ${2:?cortex-m4 or cortex-m0plus} in
    cortex-m0plus) machine=mps2-an385 chip=(-mcpu=cortex-m0plus -mthumb -mfloat-abi=soft) ;;
    *) machine=mps2-an386 chip=(-mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard) ;;
esac
shift 2
flags=("${@:--O3}")
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

cat >"$work/bench.c" <<'C'
#include "arm_nnfunctions.h"
#include <stdint.h>

/* The first timer of the board: control, count (downwards), the value to start over from. It ticks every
   40 ns; with -icount shift=8 an instruction takes 256 ns. */
static volatile uint32_t *const timer = (uint32_t *)0x40000000;

static int8_t input[96 * 28 * 28], weights[96 * 9 * 96], output[96 * 28 * 28], buffer[65536];
static int32_t bias[96], multipliers[96], shifts[96];

static int ask(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void print(const char *name, uint32_t value)
{
    char digits[12];
    int i = sizeof digits - 1;
    digits[i] = 0;
    do digits[--i] = (char)('0' + value % 10); while (value /= 10);
    ask(4, name);
    ask(4, digits + i);
}

static void measure(int bits, int side, int in, int out, int kernel)
{
    cmsis_nn_context context = {buffer, sizeof buffer};
    cmsis_nn_conv_params params = {.input_offset = 3, .output_offset = -2, .stride = {1, 1},
        .padding = {kernel / 2, kernel / 2}, .dilation = {1, 1}, .activation = {-128, 127}};
    cmsis_nn_per_channel_quant_params scales = {multipliers, shifts};
    cmsis_nn_dims from = {1, side, side, in}, filter = {out, kernel, kernel, in};
    cmsis_nn_dims biases = {1, 1, 1, out}, to = {1, side, side, out};
    uint32_t start = timer[1];
    arm_cmsis_nn_status status = (bits == 8 ? arm_convolve_wrapper_s8 : arm_convolve_wrapper_s4)(
        &context, &params, &scales, &from, input, &filter, weights, &biases, bias, &to, output);
    uint32_t ticks = start - timer[1];
    uint32_t count = (uint32_t)(((uint64_t)ticks * 40 + 128) / 256);
    uint32_t macs = (uint32_t)(side * side * in * out * kernel * kernel);
    print("s", (uint32_t)bits);
    print(" side ", (uint32_t)side);
    print(" channels ", (uint32_t)in);
    print(" to ", (uint32_t)out);
    print(" kernel ", (uint32_t)kernel);
    print(" status ", (uint32_t)-status);
    print(" instructions ", count);
    print(" per 1000 multiplications ", (uint32_t)((uint64_t)count * 1000 / macs));
    ask(4, "\n");
}

int main(void)
{
    static const int shapes[][4] = {{14, 32, 32, 3}, {14, 64, 32, 3}, {7, 32, 32, 3}, {7, 64, 32, 3},
        {28, 32, 32, 3}, {28, 64, 32, 3}, {14, 64, 32, 1}};
    for (unsigned i = 0; i < sizeof input; i++) input[i] = (int8_t)(i * 37);
    for (unsigned i = 0; i < sizeof weights; i++) weights[i] = (int8_t)(i * 91);
    for (int i = 0; i < 96; i++) multipliers[i] = 1 << 30, shifts[i] = -8, bias[i] = i;
    timer[2] = timer[1] = UINT32_MAX;
    timer[0] = 1;
    for (int bits = 8; bits >= 4; bits -= 4)
        for (unsigned i = 0; i < sizeof shapes / sizeof *shapes; i++)
            measure(bits, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
    ask(0x18, (void *)0x20026);
    for (;;) {}
}

extern uint32_t bss_start, bss_end;

void reset(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xf << 20; /* the FPU */
    for (uint32_t *word = &bss_start; word < &bss_end; word++) *word = 0;
    main();
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {(void *)0x20100000, reset};
C

cat >"$work/board.ld" <<'LD'
MEMORY {
  FLASH (rx) : ORIGIN = 0, LENGTH = 1M
  RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 1M
}
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } >FLASH
  .ARM.exidx : { *(.ARM.exidx*) } >FLASH
  .bss : { bss_start = .; *(.data*) *(.bss*) *(COMMON) . = ALIGN(4); bss_end = .; } >RAM
}
LD

mapfile -t sources < <(find "$cmsis/Source/ConvolutionFunctions" "$cmsis/Source/NNSupportFunctions" -name '*.c' |
    grep -vE '_f16|_f32|wrapper_s16|convolve_s16|conv_s16|conv_fast_s16|sizes_s16|transpose' | sort)
arm-none-eabi-gcc "${chip[@]}" "${flags[@]}" \
    -ffunction-sections -I "$cmsis/Include" "$work/bench.c" "${sources[@]}" -nostartfiles \
    -T "$work/board.ld" -Wl,--gc-sections --specs=nano.specs --specs=nosys.specs -o "$work/bench.elf"
qemu-system-arm -M "$machine" -nographic -monitor none -serial none -icount shift=8,sleep=off \
    -chardev stdio,id=console -semihosting-config enable=on,target=native,chardev=console \
    -kernel "$work/bench.elf" </dev/null
