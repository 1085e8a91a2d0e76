/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOV_FEDERATION_CONTROL_INTERNAL_H
#define SOV_FEDERATION_CONTROL_INTERNAL_H

#include <stdbool.h>
#include <sys/un.h>

/* The socket's address, good as long as *folder (the caller's to close) is open; false with errno. */
bool control_address(const char *data_dir, int *folder, struct sockaddr_un *out);

#endif
