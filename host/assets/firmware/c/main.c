/* Draws an image on a microcontroller: no heap, no operating system, one packed model in flash. */

#include "console.h"
#include "fmq.h"
#include "picture.h"
#include "plan.h"

/* The model's own flash, as `link.ld` places it. */
extern const uint8_t model_start[], model_end[];

static fmq_model model;
static float arena[PLAN_ARENA_BYTES / sizeof(float)];
static float image[PLAN_IMAGE_LEN];

static fmq_status draw(fmq_settings *settings) {
    fmq_status status = fmq_open(&model, model_start, (size_t)(model_end - model_start));
    if (status < 0) return status;
    status = fmq_self_test(&model, settings, arena, sizeof arena);
    if (status == FMQ_STATUS_NO_GOLDEN || status == FMQ_STATUS_NOT_COMPARABLE) {
        print("no self-test for this library in the file\n");
    } else if (status < 0) {
        return status;
    } else {
        print("self-test passed\n");
    }
    status = fmq_init(&model, settings, arena, sizeof arena);
    if (status < 0) return status;
    do {
        status = fmq_step(&model); /* feed the watchdog here */
    } while (status == FMQ_STATUS_MORE);
    return status < 0 ? status : fmq_finish(&model, image, PLAN_IMAGE_LEN);
}

/* FNV-1a over the bits of the image, to compare devices by. */
static uint32_t checksum(void) {
    uint32_t sum = 2166136261u;
    for (size_t i = 0; i < PLAN_IMAGE_LEN; i++) {
        const union { float value; uint32_t bits; } one = {image[i]};
        for (int byte = 0; byte < 4; byte++) sum = (sum ^ (one.bits >> 8 * byte & 0xff)) * 16777619u;
    }
    return sum;
}

int main(void) {
    fmq_settings settings;
    fmq_defaults(&settings);
    settings.precision = PLAN_PRECISION;
    settings.method = PLAN_METHOD;
    settings.steps = PLAN_STEPS;
    settings.seed = 42;
    settings.label = PLAN_CLASSES ? 3 % PLAN_CLASSES : FMQ_NO_LABEL;
    fmq_status status = draw(&settings);
    if (status < 0) {
        print("error: ");
        print(fmq_error_text(status));
        print("\n");
        return 1;
    }
    print_picture(image, PLAN_CHANNELS, PLAN_HEIGHT, PLAN_WIDTH);
    print("checksum ");
    print_hex(checksum());
    print("\n");
    return 0;
}
