/* An image as text. */

#ifndef PICTURE_H
#define PICTURE_H

#include <stddef.h>

#include "console.h"

/* Prints an image `[channels][height][width]`, -1 is black and 1 white, as the mean of its channels; two
 * rows of pixels a line, as a character is twice as high as wide. */
static inline void print_picture(const float *image, size_t channels, size_t height, size_t width) {
    for (size_t y = 0; y + 1 < height; y += 2) {
        for (size_t x = 0; x < width; x++) {
            float sum = 0;
            for (size_t c = 0; c < channels; c++) {
                const float *at = image + (c * height + y) * width + x;
                sum += at[0] + at[width];
            }
            float shade = (sum / (float)(2 * channels) + 1) / 2 * 10;
            int i = shade > 0 ? shade < 9 ? (int)shade : 9 : 0;
            print((char[]){" .:-=+*#%@"[i], 0});
        }
        print("\n");
    }
}

#endif
