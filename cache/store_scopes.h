/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The databases of one data directory: one file for each scope (model and arithmetic), so that an
 * operator who goes from one model to another and back finds the answers of both. A file's name has
 * the scope's hash; in the file it stands again, and is checked.
 *
 * They are bounded together: when one is opened, others are removed, those first that were not opened
 * or written for longest, until at most STORE_SCOPES_MAX - 1 are left, and in all no more bytes than
 * one may have.
 */
#ifndef SOV_CACHE_STORE_SCOPES_H
#define SOV_CACHE_STORE_SCOPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/store_row.h"

enum { STORE_SCOPES_MAX = 4 };

/* The file of a scope's hash. False when the path has no room. */
bool store_scopes_path(const char *folder, const uint8_t scope[STORE_HASH_BYTES], char *out,
                       size_t size);
/*
 * Databases were once called cache.sqlite, whatever their scope: gives one that is there the name of
 * the scope in it, or removes it where there is one of that name. What is no such database stays.
 */
void store_scopes_adopt(const char *folder);
/* Removes others than `own` beyond the bounds; says so in the log. */
void store_scopes_prune(const char *folder, const char *own, uint64_t bytes_max);

#endif
