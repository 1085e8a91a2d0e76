/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that fails. A layer of SQLite's own kind (a VFS, https://sqlite.org/vfs.html) in front of the
 * usual one: it counts the calls that meet a disk and lets those fail that a test says, as a disk does
 * that cannot read or write any more (EIO). A write that fails has been done in part.
 *
 * disk_install before the first database is opened. Calls come from any thread.
 */
#ifndef SOV_TESTS_DISK_FIXTURE_H
#define SOV_TESTS_DISK_FIXTURE_H

#include <errno.h>
#include <fnmatch.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>

enum disk_call {
    DISK_OPEN = 1,
    DISK_READ = 2,
    DISK_WRITE = 4, /* and what makes a file shorter */
    DISK_SYNC = 8,
    DISK_DELETE = 16,
    DISK_LOCK = 32,   /* and asking for the size */
    DISK_SHARED = 64, /* the memory that connections share */
    DISK_ALL = 127,
};

struct disk {
    pthread_mutex_t lock; /* of what follows */
    unsigned calls;       /* that fail; 0: none */
    long skip;            /* so many of them work before */
    long fails;           /* and so many fail then; -1: all that come */
    char files[64];       /* that are meant: a pattern of the shell */
    long met;             /* calls that would have been meant, ever since disk_fail */
    long failed;
};

struct disk_file {
    sqlite3_file base;
    const char *name;
    sqlite3_file *real; /* behind this one */
};

static struct disk disk = {.lock = PTHREAD_MUTEX_INITIALIZER};
static sqlite3_vfs disk_vfs, *disk_real;

/*
 * From now on, of these calls on files of such names (a pattern of the shell, for the whole path): `skip`
 * work, then `fails` do not; -1: all that come.
 */
static inline void disk_fail(const char *files, unsigned calls, long skip, long fails)
{
    pthread_mutex_lock(&disk.lock);
    disk.calls = calls;
    disk.skip = skip;
    disk.fails = fails;
    disk.met = disk.failed = 0;
    assert_true(strlen(files) < sizeof disk.files);
    memcpy(disk.files, files, strlen(files) + 1);
    pthread_mutex_unlock(&disk.lock);
}

/* It works again. How many calls failed meanwhile. */
static inline long disk_mend(void)
{
    pthread_mutex_lock(&disk.lock);
    disk.calls = 0;
    long failed = disk.failed;
    pthread_mutex_unlock(&disk.lock);
    return failed;
}

static inline long disk_failed(void)
{
    pthread_mutex_lock(&disk.lock);
    long failed = disk.failed;
    pthread_mutex_unlock(&disk.lock);
    return failed;
}

static inline bool disk_fails(enum disk_call call, const char *name)
{
    bool fails = false;
    pthread_mutex_lock(&disk.lock);
    if ((disk.calls & (unsigned)call) != 0 && name != NULL && fnmatch(disk.files, name, 0) == 0) {
        disk.met++;
        fails = disk.met > disk.skip && (disk.fails < 0 || disk.failed < disk.fails);
        disk.failed += fails;
    }
    pthread_mutex_unlock(&disk.lock);
    if (fails) errno = EIO;
    return fails;
}

#define DISK_PASS(file, method, ...) \
    (((struct disk_file *)(file))    \
         ->real->pMethods->method(((struct disk_file *)(file))->real __VA_OPT__(, ) __VA_ARGS__))
#define DISK_FAILS(file, call) disk_fails(call, ((struct disk_file *)(file))->name)

static inline int disk_close(sqlite3_file *f)
{
    return DISK_PASS(f, xClose);
}
static inline int disk_read(sqlite3_file *f, void *out, int length, sqlite3_int64 at)
{
    return DISK_FAILS(f, DISK_READ) ? SQLITE_IOERR_READ : DISK_PASS(f, xRead, out, length, at);
}
static inline int disk_write(sqlite3_file *f, const void *bytes, int length, sqlite3_int64 at)
{
    if (!DISK_FAILS(f, DISK_WRITE)) return DISK_PASS(f, xWrite, bytes, length, at);
    if (length > 1) (void)DISK_PASS(f, xWrite, bytes, length / 2, at);
    errno = EIO;
    return SQLITE_IOERR_WRITE;
}
static inline int disk_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    return DISK_FAILS(f, DISK_WRITE) ? SQLITE_IOERR_TRUNCATE : DISK_PASS(f, xTruncate, size);
}
static inline int disk_sync(sqlite3_file *f, int flags)
{
    return DISK_FAILS(f, DISK_SYNC) ? SQLITE_IOERR_FSYNC : DISK_PASS(f, xSync, flags);
}
static inline int disk_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return DISK_FAILS(f, DISK_LOCK) ? SQLITE_IOERR_FSTAT : DISK_PASS(f, xFileSize, size);
}
static inline int disk_lock(sqlite3_file *f, int level)
{
    return DISK_FAILS(f, DISK_LOCK) ? SQLITE_IOERR_LOCK : DISK_PASS(f, xLock, level);
}
static inline int disk_unlock(sqlite3_file *f, int level)
{
    return DISK_PASS(f, xUnlock, level);
}
static inline int disk_check_lock(sqlite3_file *f, int *out)
{
    return DISK_PASS(f, xCheckReservedLock, out);
}
static inline int disk_control(sqlite3_file *f, int what, void *argument)
{
    return DISK_PASS(f, xFileControl, what, argument);
}
static inline int disk_sector(sqlite3_file *f)
{
    return DISK_PASS(f, xSectorSize);
}
static inline int disk_traits(sqlite3_file *f)
{
    return DISK_PASS(f, xDeviceCharacteristics);
}
static inline int disk_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
    return DISK_FAILS(f, DISK_SHARED) ? SQLITE_IOERR_SHMMAP
                                      : DISK_PASS(f, xShmMap, page, size, extend, out);
}
static inline int disk_shm_lock(sqlite3_file *f, int offset, int count, int flags)
{
    bool takes = (flags & SQLITE_SHM_LOCK) != 0;
    return takes && DISK_FAILS(f, DISK_SHARED) ? SQLITE_IOERR_SHMLOCK
                                               : DISK_PASS(f, xShmLock, offset, count, flags);
}
static inline void disk_shm_barrier(sqlite3_file *f)
{
    DISK_PASS(f, xShmBarrier);
}
static inline int disk_shm_unmap(sqlite3_file *f, int remove)
{
    return DISK_PASS(f, xShmUnmap, remove);
}

static inline int disk_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags,
                            int *out)
{
    static const sqlite3_io_methods METHODS = {
        2,           disk_close,   disk_read,     disk_write,       disk_truncate,  disk_sync,
        disk_size,   disk_lock,    disk_unlock,   disk_check_lock,  disk_control,   disk_sector,
        disk_traits, disk_shm_map, disk_shm_lock, disk_shm_barrier, disk_shm_unmap, NULL,
        NULL};
    struct disk_file *file = (struct disk_file *)f;
    (void)vfs;
    *file = (struct disk_file){.name = name, .real = (sqlite3_file *)(file + 1)};
    if (disk_fails(DISK_OPEN, name)) return SQLITE_CANTOPEN;
    int rc = disk_real->xOpen(disk_real, name, file->real, flags, out);
    if (file->real->pMethods != NULL) f->pMethods = &METHODS;
    return rc;
}

static inline int disk_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    if (disk_fails(DISK_DELETE, name)) return SQLITE_IOERR_DELETE;
    return disk_real->xDelete(disk_real, name, sync);
}

/* For this process, and for good. */
static inline int disk_install(void **state)
{
    (void)state;
    disk_real = sqlite3_vfs_find(NULL);
    if (disk_real == NULL) return -1;
    disk_vfs = *disk_real;
    disk_vfs.zName = "failing";
    disk_vfs.pNext = NULL;
    disk_vfs.szOsFile = (int)sizeof(struct disk_file) + disk_real->szOsFile;
    disk_vfs.xOpen = disk_open;
    disk_vfs.xDelete = disk_delete;
    return sqlite3_vfs_register(&disk_vfs, 1) == SQLITE_OK ? 0 : -1;
}

#endif
