/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/store_scopes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "cache/store_db.h"

#define SCOPE_PREFIX "cache-"
#define SCOPE_SUFFIX ".sqlite"

enum {
    SCOPE_NAME_LENGTH = sizeof SCOPE_PREFIX - 1 + 2 * STORE_HASH_BYTES + sizeof SCOPE_SUFFIX - 1,
    PATH_BYTES_MAX = 4096,
    /* Of a folder with more of them, the rest waits for the next time. */
    OTHERS_MAX = 64,
};

struct other {
    char name[SCOPE_NAME_LENGTH + 1];
    int64_t used_ns; /* when the file or its log was last written */
    uint64_t bytes;
};

static void name_of(const uint8_t scope[STORE_HASH_BYTES], char out[SCOPE_NAME_LENGTH + 1])
{
    static const char DIGITS[] = "0123456789abcdef";
    size_t at = sizeof SCOPE_PREFIX - 1;
    memcpy(out, SCOPE_PREFIX, at);
    for (size_t i = 0; i < STORE_HASH_BYTES; i++) {
        out[at++] = DIGITS[scope[i] >> 4];
        out[at++] = DIGITS[scope[i] & 15];
    }
    memcpy(out + at, SCOPE_SUFFIX, sizeof SCOPE_SUFFIX);
}

static bool is_name(const char *name)
{
    size_t begin = sizeof SCOPE_PREFIX - 1;
    return strlen(name) == SCOPE_NAME_LENGTH && memcmp(name, SCOPE_PREFIX, begin) == 0 &&
           strspn(name + begin, "0123456789abcdef") == 2 * STORE_HASH_BYTES &&
           strcmp(name + begin + 2 * STORE_HASH_BYTES, SCOPE_SUFFIX) == 0;
}

bool store_scopes_path(const char *folder, const uint8_t scope[STORE_HASH_BYTES], char *out,
                       size_t size)
{
    char name[SCOPE_NAME_LENGTH + 1];
    name_of(scope, name);
    int length = snprintf(out, size, "%s/%s", folder, name);
    return length > 0 && (size_t)length < size;
}

void store_scopes_adopt(const char *folder)
{
    char old[PATH_BYTES_MAX], new[PATH_BYTES_MAX];
    uint8_t scope[STORE_HASH_BYTES];
    if (snprintf(old, sizeof old, "%s/cache" SCOPE_SUFFIX, folder) >= (int)sizeof old) return;
    if (access(old, F_OK) != 0 || !store_db_read_scope(old, scope)) return;
    if (!store_scopes_path(folder, scope, new, sizeof new)) return;
    if (access(new, F_OK) == 0)
        store_db_remove(old);
    else if (rename(old, new) != 0)
        log_warn("cache database %s: it cannot be renamed to %s: %s", old, new, strerror(errno));
}

/* The file or a companion, where it is there. */
static void add_file(int folder, const char *name, const char *suffix, struct other *other)
{
    char file[SCOPE_NAME_LENGTH + 16];
    struct stat info;
    snprintf(file, sizeof file, "%s%s", name, suffix);
    if (fstatat(folder, file, &info, AT_SYMLINK_NOFOLLOW) != 0) return;
    int64_t used_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    if (used_ns > other->used_ns) other->used_ns = used_ns;
    other->bytes += (uint64_t)info.st_size;
}

static int by_use(const void *a, const void *b)
{
    const struct other *x = a, *y = b;
    return (x->used_ns < y->used_ns) - (x->used_ns > y->used_ns);
}

void store_scopes_prune(const char *folder, const char *own, uint64_t bytes_max)
{
    struct other others[OTHERS_MAX];
    int count = 0;
    uint64_t bytes = 0;
    const char *own_name = strrchr(own, '/');
    struct dirent *entry;
    DIR *dir = opendir(folder);
    if (dir == NULL) return;
    while (count < OTHERS_MAX && (entry = readdir(dir)) != NULL) {
        if (!is_name(entry->d_name) ||
            (own_name != NULL && strcmp(entry->d_name, own_name + 1) == 0))
            continue;
        struct other *other = &others[count++];
        *other = (struct other){0};
        memcpy(other->name, entry->d_name, sizeof other->name);
        add_file(dirfd(dir), other->name, "", other);
        add_file(dirfd(dir), other->name, "-wal", other);
    }
    closedir(dir);
    qsort(others, (size_t)count, sizeof others[0], by_use);
    for (int i = 0; i < count; i++) {
        char path[PATH_BYTES_MAX];
        bytes += others[i].bytes;
        if (i < STORE_SCOPES_MAX - 1 && bytes <= bytes_max) continue;
        if (snprintf(path, sizeof path, "%s/%s", folder, others[i].name) >= (int)sizeof path)
            continue;
        log_info("cache database %s: removed, others were used since", path);
        store_db_remove(path);
        bytes -= others[i].bytes;
    }
}
