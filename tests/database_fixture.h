/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of durable rooms do to a folder and an SQLite database in it, as others would: read and
 * change it, lock it, damage it, look at it as another process or as a user without privileges.
 */
#ifndef SOV_TESTS_DATABASE_FIXTURE_H
#define SOV_TESTS_DATABASE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/datadir.h"

enum { TEST_NOBODY = 65534 };

/* A new folder of this name and some letters; path has room for `size` bytes. */
static inline void test_folder_make(char *path, size_t size, const char *name)
{
    const char *tmp = getenv("TMPDIR");
    int length = snprintf(path, size, "%s/sovereign-%s-XXXXXX", tmp != NULL ? tmp : "/tmp", name);
    assert_true(length > 0 && (size_t)length < size);
    assert_non_null(mkdtemp(path));
}

/* With the files in it. */
static inline void test_folder_remove(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.') assert_int_equal(unlinkat(dirfd(dir), entry->d_name, 0), 0);
    closedir(dir);
    assert_int_equal(rmdir(path), 0);
}

static inline void test_file_copy(const char *from, const char *to)
{
    char bytes[16384];
    ssize_t length;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(in >= 0 && out >= 0);
    while ((length = read(in, bytes, sizeof bytes)) > 0)
        assert_int_equal(write(out, bytes, (size_t)length), length);
    assert_int_equal(length, 0);
    close(in);
    close(out);
}

/* The files in a folder whose names begin so, to another one. */
static inline void test_files_copy(const char *from, const char *begin, const char *to)
{
    char source[1024], target[1024];
    DIR *dir = opendir(from);
    struct dirent *entry;
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, begin, strlen(begin)) != 0) continue;
        snprintf(source, sizeof source, "%s/%s", from, entry->d_name);
        snprintf(target, sizeof target, "%s/%s", to, entry->d_name);
        test_file_copy(source, target);
    }
    closedir(dir);
}

/* Runs SQL, as the sqlite3 shell would. */
static inline void test_database_run(const char *path, const char *text)
{
    sqlite3 *db;
    char *message = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, text, NULL, NULL, &message) != SQLITE_OK) fail_msg("%s", message);
    sqlite3_close(db);
}

/* The first row's first column as text; "" for none. */
static inline const char *test_database_text(const char *path, const char *text)
{
    static char out[4096];
    sqlite3 *db;
    sqlite3_stmt *s;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    if (sqlite3_prepare_v2(db, text, -1, &s, NULL) != SQLITE_OK) fail_msg("%s", sqlite3_errmsg(db));
    out[0] = '\0';
    if (sqlite3_step(s) == SQLITE_ROW && sqlite3_column_type(s, 0) != SQLITE_NULL)
        snprintf(out, sizeof out, "%s", (const char *)sqlite3_column_text(s, 0));
    sqlite3_finalize(s);
    sqlite3_close(db);
    return out;
}

static inline long long test_database_number(const char *path, const char *text)
{
    return atoll(test_database_text(path, text));
}

/* Another program's lock, until test_database_unlock. how: "BEGIN IMMEDIATE" or "BEGIN EXCLUSIVE". */
static inline sqlite3 *test_database_lock(const char *path, const char *how)
{
    sqlite3 *other;
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, how, NULL, NULL, NULL), SQLITE_OK);
    return other;
}

static inline void test_database_unlock(sqlite3 *other)
{
    assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
}

/* Writes over a part of the file, which must not be longer than 8192 bytes. */
static inline void test_file_damage(const char *path, off_t at, size_t length)
{
    char junk[8192];
    memset(junk, 0xA5, sizeof junk);
    assert_true(length <= sizeof junk);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(file >= 0);
    assert_int_equal(pwrite(file, junk, length, at), length);
    close(file);
}

/* Every page of a database but the first. */
static inline void test_pages_damage(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    for (off_t at = 4096; at + 4096 <= st.st_size; at += 4096) test_file_damage(path, at, 4096);
}

static inline int test_mode_of(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) return -1;
    return (int)(st.st_mode & 07777);
}

/* What `body` returns in a child of this process must be 0. */
static inline void test_in_child(int (*body)(void *argument), void *argument)
{
    int status;
    (void)fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) _exit(body(argument));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Likewise, and root, who may do anything, becomes nobody before. */
struct test_unprivileged {
    int (*body)(void *argument);
    void *argument;
};

static inline int test_unprivileged_child(void *argument)
{
    const struct test_unprivileged *child = argument;
    if (geteuid() == 0 && setuid(TEST_NOBODY) != 0) return 99;
    return child->body(child->argument);
}

static inline void test_in_unprivileged_child(int (*body)(void *argument), void *argument)
{
    struct test_unprivileged child = {body, argument};
    test_in_child(test_unprivileged_child, &child);
}

static inline int test_in_use_child(void *path)
{
    struct datadir *dir;
    struct sov_errbuf err = {""};
    char expected[64];
    snprintf(expected, sizeof expected, "in use by process %ld", (long)getppid());
    enum sov_error error = datadir_open(path, &dir, &err);
    return error == SOV_ERR_BUSY && strstr(err.message, expected) != NULL ? 0 : 1;
}

/* This process has the data directory, and another one is told so. */
static inline void test_assert_in_use(char *path)
{
    test_in_child(test_in_use_child, path);
}

#endif
