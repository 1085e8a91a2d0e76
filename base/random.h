/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOV_BASE_RANDOM_H
#define SOV_BASE_RANDOM_H

#include <stddef.h>

#include "base/error.h"

/* Unpredictable bytes from the operating system, for secrets. SOV_ERR_IO. */
enum sov_error random_bytes(void *bytes, size_t length, struct sov_errbuf *err);

#endif
