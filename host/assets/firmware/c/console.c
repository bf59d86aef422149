#include "console.h"

enum { SYS_WRITE0 = 0x04, SYS_EXIT_EXTENDED = 0x20, APPLICATION_EXIT = 0x20026 };

uintptr_t semihost(uintptr_t operation, const volatile void *argument) {
    register uintptr_t r0 __asm("r0") = operation;
    register const volatile void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void print(const char *text) {
    semihost(SYS_WRITE0, text);
}

void print_number(uint64_t number) {
    char digits[21];
    char *at = digits + sizeof digits - 1;
    *at = 0;
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    print(at);
}

void print_hex(uint32_t bits) {
    char digits[9] = {0};
    for (int i = 0; i < 8; i++) digits[i] = "0123456789abcdef"[bits >> (28 - 4 * i) & 15];
    print(digits);
}

_Noreturn void finish(int code) {
    const volatile uintptr_t block[2] = {APPLICATION_EXIT, (uintptr_t)code};
    for (;;) semihost(SYS_EXIT_EXTENDED, block);
}
