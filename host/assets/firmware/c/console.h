/* The debugger's console, by semihosting: for an emulator or a debug probe. On a board of your own, print
 * to its serial port instead. */

#ifndef CONSOLE_H
#define CONSOLE_H

#include <stdint.h>

/* Prints a text that ends in 0. */
void print(const char *text);

/* Prints a number in decimal digits. */
void print_number(uint64_t number);

/* Prints eight hexadecimal digits. */
void print_hex(uint32_t bits);

/* Ends the program with a code. */
_Noreturn void finish(int code);

/* Asks the debugger: the operation's number and its argument. */
uintptr_t semihost(uintptr_t operation, const volatile void *argument);

#endif
