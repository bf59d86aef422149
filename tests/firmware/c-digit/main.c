/* Draws a digit on a microcontroller from C: no heap, no operating system, one packed model in flash.
 *
 * The words after the program's name on the debugger's command line are the class, the seed and the
 * steps, then `bits` to have the image's values too, as for `../digit`. The code it ends with: 0 as
 * asked, 1 for an error, which it prints, 102 for a fault. */

#include "console.h"
#include "fmq.h"
#include "picture.h"

enum { ARENA_FLOATS = 28 << 10, IMAGE_FLOATS = 28 * 28, SYS_GET_CMDLINE = 0x15 };

extern const uint8_t model_start[], model_end[];
extern uint32_t stack_end[];

static fmq_model model;
static float arena[ARENA_FLOATS];
static float image[IMAGE_FLOATS];

static const uint32_t PAINT = 0xCCCCCCCC;

/* Paints the stack below the caller, so that its depth can be read. */
static void paint_stack(void) {
    volatile uint32_t *here = (volatile uint32_t *)__builtin_frame_address(0);
    for (volatile uint32_t *at = stack_end; at < here - 32; at++) *at = PAINT;
}

/* The most bytes of stack that were in use at once so far. */
static size_t stack_depth(void) {
    extern uint32_t stack_top[];
    const volatile uint32_t *at = stack_end;
    while (at < stack_top && *at == PAINT) at++;
    return (size_t)((const volatile char *)stack_top - (const volatile char *)at);
}

/* A number from the start of `*text`, which moves past it; `other` where the text has ended. */
static int number(const char **text, uint64_t other, uint64_t *found) {
    while (**text == ' ') ++*text;
    *found = other;
    if (!**text) return 1;
    const char *start = *text;
    for (*found = 0; **text >= '0' && **text <= '9'; ++*text) *found = *found * 10 + (uint64_t)(**text - '0');
    return *text > start && (**text == ' ' || !**text);
}

/* Whether `*text` goes on with a word, after which it then is. */
static int word(const char **text, const char *expected) {
    while (**text == ' ') ++*text;
    const char *at = *text;
    while (*expected && *at == *expected) at++, expected++;
    if (*expected || (*at && *at != ' ')) return 0;
    *text = at;
    return 1;
}

/* Reads the command line: whether it is as it should be. */
static int order(fmq_settings *settings, int *bits) {
    static char line[128];
    volatile uintptr_t block[2] = {(uintptr_t)line, sizeof line};
    if (semihost(SYS_GET_CMDLINE, block)) return 0;
    const char *text = line;
    while (*text && *text != ' ') text++;
    uint64_t class, steps;
    if (!number(&text, 3, &class) || !number(&text, 42, &settings->seed) || !number(&text, 16, &steps)) return 0;
    if (class > UINT32_MAX || steps > UINT32_MAX) return 0;
    settings->label = (uint32_t)class;
    settings->steps = (uint32_t)steps;
    if (word(&text, "integer")) settings->precision = FMQ_INTEGER;
    *bits = word(&text, "bits");
    while (*text == ' ') text++;
    return !*text;
}

static fmq_status draw(const fmq_settings *settings, fmq_needs *needs, int *tested) {
    fmq_status status = fmq_open(&model, model_start, (size_t)(model_end - model_start));
    if (status < 0) return status;
    needs->size = sizeof *needs;
    status = fmq_plan(&model, settings, needs);
    if (status < 0) return status;
    status = fmq_self_test(&model, settings, arena, sizeof arena);
    *tested = status == FMQ_STATUS_OK;
    if (status < 0 && status != FMQ_STATUS_NO_GOLDEN && status != FMQ_STATUS_NOT_COMPARABLE) return status;
    status = fmq_init(&model, settings, arena, sizeof arena);
    if (status < 0) return status;
    do status = fmq_step(&model);
    while (status == FMQ_STATUS_MORE);
    return status < 0 ? status : fmq_finish(&model, image, IMAGE_FLOATS);
}

static void say(const char *word, uint64_t value, const char *unit) {
    print(word);
    print_number(value);
    print(unit);
}

int main(void) {
    paint_stack();
    fmq_settings settings;
    fmq_needs needs;
    int bits, tested;
    fmq_defaults(&settings);
    if (!order(&settings, &bits)) {
        print("error: the words must be CLASS SEED STEPS integer bits; the last may be left out\n");
        return 1;
    }
    fmq_status status = draw(&settings, &needs, &tested);
    if (status < 0) {
        print("error: ");
        print(fmq_error_text(status));
        print("\n");
        return 1;
    }
    print_picture(image, needs.channels, needs.height, needs.width);
    print(tested ? "self-test passed\n" : "self-test not in the file\n");
    say("class ", settings.label, "");
    say(" seed ", settings.seed, "");
    say(" steps ", settings.steps, "\n");
    say("arena ", needs.arena_bytes, " bytes\n");
    say("stack ", stack_depth(), " bytes\n");
    say("macs ", needs.macs * settings.steps, "\n");
    for (size_t i = 0; bits && i < needs.image_len; i++) {
        const union { float value; uint32_t bits; } one = {image[i]};
        if (i % needs.width == 0) print("image ");
        print_hex(one.bits);
        if (i % needs.width + 1 == needs.width) print("\n");
    }
    return 0;
}
