/* From reset to main: vectors, FPU, memory. Stays as it is on any Cortex-M0+, M4F or M7; a board's interrupt
 * handlers go after the sixteen vectors. */

#include <stdint.h>

#include "console.h"

extern uint32_t stack_top[], data_start[], data_end[], data_load[], bss_start[], bss_end[];

int main(void);
void reset(void);

#ifdef __ARM_FP
/* Coprocessor access control: full access to the FPU, which is off at reset. */
#define CPACR (*(volatile uint32_t *)0xE000ED88)
#endif

void reset(void) {
#ifdef CPACR
    CPACR |= 0xFu << 20;
    __asm volatile("dsb\n isb" ::: "memory");
#endif
    const uint32_t *from = data_load;
    for (uint32_t *to = data_start; to < data_end; to++) *to = *from++;
    for (uint32_t *to = bss_start; to < bss_end; to++) *to = 0;
    finish(main());
}

static void fault(void) {
    print("error: fault\n");
    finish(102);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))stack_top, reset, fault, fault, fault, fault, fault, 0,
    0, 0, 0, fault, fault, 0, fault, fault,
};
