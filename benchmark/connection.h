/* SPDX-License-Identifier: Apache-2.0 */
/* Blocking TCP connections to 127.0.0.1, as the clients of all benchmarks use them. No other address is ever asked. */
#ifndef SOV_BENCHMARK_CONNECTION_H
#define SOV_BENCHMARK_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>

/* A connected socket that sends at once what is written, and gives up reading after so long; -1 with errno. */
int bench_connect(int port, int timeout_s);
/* All of it; false with errno. */
bool bench_send(int fd, const char *bytes, size_t length);
/* So many bytes, whatever they are; false with errno, which is 0 when the other side has closed. */
bool bench_receive(int fd, char *bytes, size_t length);

#endif
