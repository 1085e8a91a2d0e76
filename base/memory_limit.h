/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOV_BASE_MEMORY_LIMIT_H
#define SOV_BASE_MEMORY_LIMIT_H

#include <stddef.h>

/*
 * The memory this process may come to use: the machine's, or less where a cgroup or a resource
 * limit says so.
 */
size_t memory_limit(void);

#endif
