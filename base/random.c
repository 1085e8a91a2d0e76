/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

enum sov_error random_bytes(void *bytes, size_t length, struct sov_errbuf *err)
{
    char *at = bytes;
    while (length > 0) {
        ssize_t n = getrandom(at, length, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return sov_fail(err, SOV_ERR_IO, "random numbers: getrandom: %s", strerror(errno));
        at += n;
        length -= (size_t)n;
    }
    return SOV_OK;
}
