/* fmq: draws images from packed flow-matching nets without a heap, on a microcontroller.
 *
 * Made by cbindgen of quant-core/src/capi; not to be edited. The library calls nothing back, keeps no
 * state outside the memory that it is given, and does not panic. Every pointer is checked for null and
 * alignment, every length and the order of the calls too. What cannot be checked: that the memory is as
 * long as was said, that the file does not change while it is open, and one call at a time for a model.
 */

#ifndef FMQ_H
#define FMQ_H

#include <stddef.h>
#include <stdint.h>

// Words of 64 bits of a `fmq_model`.
#define FMQ_MODEL_WORDS 96

// The label that stands for none.
#define FMQ_NO_LABEL 4294967295

// `x + h v(x, t)`: one evaluation of the net a step.
#define FMQ_EULER 0

// `x + h v(x + h/2 v(x, t), t + h/2)`: two evaluations a step.
#define FMQ_MIDPOINT 1

// `x + h/2 (k1 + k2)`, `k1 = v(x, t)`, `k2 = v(x + h k1, t + h)`: two evaluations a step.
#define FMQ_HEUN2 2

// Computing in floats.
#define FMQ_FLOAT 0

// Computing in integers: fewer instructions, less memory, as exact as `fmq calibrate` made it.
#define FMQ_INTEGER 1

// Outcome of a call: at least 0 where it did what it should.
enum fmq_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Done.
  FMQ_STATUS_OK = 0,
  // A step is done, and there are more.
  FMQ_STATUS_MORE = 1,
  // A pointer is null.
  FMQ_STATUS_NULL = -1,
  // A pointer is not aligned as its type must be.
  FMQ_STATUS_ALIGNMENT = -2,
  // A buffer is too short, or longer than the address space.
  FMQ_STATUS_LENGTH = -3,
  // Two buffers overlap.
  FMQ_STATUS_OVERLAP = -4,
  // The call is not due: no model is open, no image was begun, or its steps are not all done.
  FMQ_STATUS_ORDER = -5,
  // A field of the settings is outside its range, or their size is another version's.
  FMQ_STATUS_SETTINGS = -6,
  // The memory does not start with a packed file, or the file breaks a rule of its format.
  FMQ_STATUS_FILE = -7,
  // The file is damaged: a checksum does not match.
  FMQ_STATUS_CHECKSUM = -8,
  // The file is of a later version of the format or needs a feature that this library lacks.
  FMQ_STATUS_VERSION = -9,
  // The file holds no net that this library can draw images of a known size with.
  FMQ_STATUS_NET = -10,
  // The state is not finite: the net does not fit its settings.
  FMQ_STATUS_NON_FINITE = -11,
  // The device does not compute what the file says the net does.
  FMQ_STATUS_SELF_TEST = -12,
  // The file holds nothing to test the device with.
  FMQ_STATUS_NO_GOLDEN = -13,
  // The file holds no scales to compute in integers with.
  FMQ_STATUS_NO_SCALES = -14,
  // The file's self-test is of another version of the arithmetic: it says nothing of the device.
  FMQ_STATUS_NOT_COMPARABLE = -15,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum fmq_status fmq_status;
#else
typedef int32_t fmq_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// An open model and the image that is being drawn from it. It may be copied and moved; its contents
// are the library's own.
typedef struct fmq_model {
  uint64_t opaque[FMQ_MODEL_WORDS];
} fmq_model;

// Settings by which an image is drawn. `fmq_defaults` fills them in.
typedef struct fmq_settings {
  // `sizeof(fmq_settings)`: later versions of the library add fields after the last.
  uint32_t size;
  // `FMQ_EULER`, `FMQ_MIDPOINT` or `FMQ_HEUN2`.
  uint32_t method;
  // Steps from noise to image, 1 to 2^24.
  uint32_t steps;
  // The class, or `FMQ_NO_LABEL`.
  uint32_t label;
  // Guidance `s`: the velocity is `(1 + s) v(x, t, label) - s v(x, t, none)`; 0 is off.
  float guidance;
  // `FMQ_FLOAT`, or `FMQ_INTEGER` for a file that has been through `fmq calibrate`.
  uint32_t precision;
  // Seed of the noise.
  uint64_t seed;
  // Which of the seed's images, from 0.
  uint64_t image;
} fmq_settings;

// Needs of drawing, and the size of its image.
typedef struct fmq_needs {
  // `sizeof(fmq_needs)`, to be set before `fmq_plan`.
  uint32_t size;
  // Alignment of the arena's address.
  uint32_t arena_align;
  // Bytes of the arena, for `fmq_init` and `fmq_self_test` with these settings.
  size_t arena_bytes;
  // Bytes of stack that a call takes, about: as measured on a Cortex-M4.
  size_t stack_bytes;
  // Bytes of the file.
  size_t file_bytes;
  // Floats of an image: `channels * height * width`.
  size_t image_len;
  // Channels of an image.
  uint32_t channels;
  // Rows of an image.
  uint32_t height;
  // Columns of an image.
  uint32_t width;
  // Number of classes, whose labels start at 0; 0 for a net without labels.
  uint32_t classes;
  // 1 where the file can test its device, else 0.
  uint32_t golden;
  // 0.
  uint32_t reserved;
  // Multiplications of one evaluation of the net.
  uint64_t macs;
} fmq_needs;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Checks the packed file at the start of `memory` from end to end and opens it. `memory` may go on
// after the file, as a flash does: the file's header says how long it is.
//
// On success `model` refers to the file until it is opened again: the file must stay and not change.
//
// # Safety
// `model` must be null or memory of a `fmq_model`; `memory` must be null or hold `len` bytes.
fmq_status fmq_open(struct fmq_model *model,
                    const uint8_t *memory,
                    size_t len);

// Fills in the settings: their size, 16 steps of Euler's method, no label, no guidance, seed 0.
//
// # Safety
// `settings` must be null or memory of a `fmq_settings`.
fmq_status fmq_defaults(struct fmq_settings *settings);

// Says what drawing takes with `settings`, or with the defaults where they are null. `needs.size` must
// be set to `sizeof(fmq_needs)` before.
//
// # Safety
// `model` must be null, zeroed, or have been given to `fmq_open`; `settings` and `needs` must be null
// or have as many bytes as their first field says.
fmq_status fmq_plan(const struct fmq_model *model,
                    const struct fmq_settings *settings,
                    struct fmq_needs *needs);

// Computes the velocity that the file holds for this purpose and compares: whether this build on this
// device does what the net does, in the precision of `settings`, or of the defaults where they are null.
// To be called before `fmq_init`.
//
// # Safety
// As `fmq_init`.
fmq_status fmq_self_test(struct fmq_model *model,
                         const struct fmq_settings *settings,
                         void *arena,
                         size_t arena_bytes);

// Starts an image from the noise of `settings`, or of the defaults where they are null. The arena is
// the model's until `fmq_finish`, an error, or the next `fmq_init`.
//
// # Safety
// `model` must be null, zeroed, or have been given to `fmq_open`; `settings` must be null or have as
// many bytes as its first field says; `arena` must be null or `arena_bytes` bytes of memory, which
// nothing else may write to until `fmq_finish`.
fmq_status fmq_init(struct fmq_model *model,
                    const struct fmq_settings *settings,
                    void *arena,
                    size_t arena_bytes);

// Does one step of the solver: `FMQ_STATUS_MORE` while there are more, `FMQ_STATUS_OK` after the
// last. An error ends the image.
//
// # Safety
// `model` must be null, zeroed, or have been given to `fmq_open`; the arena of `fmq_init` must be there.
fmq_status fmq_step(struct fmq_model *model);

// Writes the finished image, `[channels][height][width]`, about -1 to 1, and gives the arena back.
//
// # Safety
// As `fmq_step`; `image` must be null or hold `len` floats.
fmq_status fmq_finish(struct fmq_model *model, float *image, size_t len);

// Text of a status, with what would be right; it ends in 0 and stays.
const char *fmq_error_text(int32_t status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FMQ_H */
