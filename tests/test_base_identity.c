/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's key: made once, kept, never readable by others; and everything that makes it refuse to
 * go on with a key that may not be the node's any more.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "base/datadir.h"
#include "base/identity.h"
#include "base/mem.h"

static char parent[220], folder[256], path[512];

/* A data directory that is not there yet. */
static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(parent, sizeof parent, "%s/identity-XXXXXX",
             tmp != NULL && strlen(tmp) < 200 ? tmp : "/tmp");
    assert_non_null(mkdtemp(parent));
    snprintf(folder, sizeof folder, "%s/data", parent);
    snprintf(path, sizeof path, "%s/node.key", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", parent);
    return system(command);
}

static struct identity *open_good(void)
{
    struct identity *id;
    struct sov_errbuf err = {""};
    if (identity_open(folder, &id, &err) != SOV_OK) fail_msg("%s", err.message);
    return id;
}

static void assert_refused(enum sov_error code, const char *message)
{
    struct identity *id = (void *)1;
    struct sov_errbuf err = {""};
    assert_int_equal(identity_open(folder, &id, &err), code);
    assert_null(id);
    if (strstr(err.message, message) == NULL) fail_msg("'%s' is not in: %s", message, err.message);
    if (strstr(err.message, folder) == NULL) fail_msg("no path is in: %s", err.message);
}

static void write_key(const char *text, size_t length, mode_t mode)
{
    mkdir(folder, 0700);
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    assert_true(fd >= 0 && fchmod(fd, mode) == 0);
    assert_int_equal(write(fd, text, length), length);
    close(fd);
}

static size_t read_key(char text[1024])
{
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    ssize_t length = read(fd, text, 1023);
    assert_true(length > 0);
    text[length] = '\0';
    close(fd);
    return (size_t)length;
}

static mode_t mode_of(const char *name)
{
    struct stat st;
    assert_int_equal(stat(name, &st), 0);
    return st.st_mode & 07777;
}

static void test_made_at_first_use_and_kept(void **state)
{
    (void)state;
    umask(0);
    struct identity *first = open_good();
    umask(022);
    unsigned char key[IDENTITY_PUBLIC_BYTES];
    memcpy(key, identity_public(first), sizeof key);
    identity_close(first);
    assert_int_equal(mode_of(folder), 0700);
    assert_int_equal(mode_of(path), 0600);
    struct identity *again = open_good();
    assert_memory_equal(identity_public(again), key, sizeof key);
    identity_close(again);
    identity_close(NULL);
}

static void test_two_nodes_have_two_keys(void **state)
{
    (void)state;
    struct identity *first = open_good();
    unlink(path);
    struct identity *second = open_good();
    assert_memory_not_equal(identity_public(first), identity_public(second), IDENTITY_PUBLIC_BYTES);
    identity_close(first);
    identity_close(second);
}

/* RFC 8032, 7.1, test 1, as a file; and a signature that any implementation checks. */
static void test_signatures_are_ed25519_over_domain_and_message(void **state)
{
    (void)state;
    static const char line[] = "sovereign-node-key-v1 "
                               "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60 "
                               "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\n";
    write_key(line, strlen(line), 0600);
    struct identity *id = open_good();
    unsigned char signature[IDENTITY_SIGNATURE_BYTES];
    assert_int_equal(identity_sign(id, "purpose", "hello", 5, signature, NULL), SOV_OK);
    assert_int_equal(crypto_sign_verify_detached(signature, (const unsigned char *)"purpose\0hello",
                                                 13, identity_public(id)),
                     0);
    identity_close(id);
}

static bool genuine(const struct identity *id, const char *domain, const char *message,
                    const unsigned char *signature)
{
    bool good;
    assert_int_equal(identity_verify(identity_public(id), domain, message, strlen(message),
                                     signature, &good, NULL),
                     SOV_OK);
    return good;
}

static void test_a_signature_is_for_one_purpose_and_one_message(void **state)
{
    (void)state;
    struct identity *id = open_good();
    unsigned char signature[IDENTITY_SIGNATURE_BYTES];
    assert_int_equal(identity_sign(id, "a", "message", 7, signature, NULL), SOV_OK);
    assert_true(genuine(id, "a", "message", signature));
    assert_false(genuine(id, "b", "message", signature));
    assert_false(genuine(id, "am", "essage", signature));
    assert_false(genuine(id, "a", "messagE", signature));
    assert_false(genuine(id, "a", "", signature));
    for (int i = 0; i < IDENTITY_SIGNATURE_BYTES; i++) {
        signature[i] ^= 1;
        assert_false(genuine(id, "a", "message", signature));
        signature[i] ^= 1;
    }
    identity_close(id);
}

static void test_a_key_that_others_may_read_is_refused(void **state)
{
    (void)state;
    identity_close(open_good());
    static const mode_t modes[] = {0640, 0604, 0620, 0660, 0644, 0610};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        chmod(path, modes[i]);
        char expected[32];
        snprintf(expected, sizeof expected, "has mode %04o", (unsigned)modes[i]);
        assert_refused(SOV_ERR_INVALID, expected);
    }
    chmod(path, 0400);
    identity_close(open_good());
}

static void test_a_folder_that_others_may_write_to_is_refused(void **state)
{
    (void)state;
    identity_close(open_good());
    chmod(folder, 0770);
    assert_refused(SOV_ERR_INVALID, "has mode 0770");
    chmod(folder, 01777);
    assert_refused(SOV_ERR_INVALID, "has mode 1777");
    chmod(folder, 0755);
    identity_close(open_good());
}

static void test_damaged_files_are_refused_and_kept(void **state)
{
    (void)state;
    identity_close(open_good());
    char good[1024], text[1024], after[1024];
    size_t length = read_key(good);
    for (size_t i = 0; i < length; i++) {
        memcpy(text, good, length + 1);
        text[i] = text[i] == 'a' ? 'b' : 'a';
        write_key(text, length, 0600);
        assert_refused(SOV_ERR_FORMAT, "is damaged");
        assert_int_equal(read_key(after), length);
        assert_string_equal(after, text);
    }
    for (size_t cut = 0; cut < length; cut++) {
        write_key(good, cut, 0600);
        assert_refused(SOV_ERR_FORMAT, "is damaged");
    }
    memcpy(text, good, length);
    text[length] = '\n';
    write_key(text, length + 1, 0600);
    assert_refused(SOV_ERR_FORMAT, "is damaged");
    memset(text, 0, length);
    write_key(text, length, 0600);
    assert_refused(SOV_ERR_FORMAT, "is damaged");
    write_key(good, length, 0600);
    identity_close(open_good());
}

static void test_what_is_no_file_is_refused(void **state)
{
    (void)state;
    identity_close(open_good());
    char other[600];
    snprintf(other, sizeof other, "%s/other", folder);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(symlink(other, path), 0);
    assert_refused(SOV_ERR_INVALID, "is not a regular file");
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_refused(SOV_ERR_INVALID, "is not a regular file");
    rmdir(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_refused(SOV_ERR_INVALID, "is not a regular file");
}

static void test_what_is_no_folder_is_refused(void **state)
{
    (void)state;
    int fd = open(folder, O_WRONLY | O_CREAT, 0600);
    close(fd);
    assert_refused(SOV_ERR_INVALID, "is not a folder");
    unlink(folder);
    assert_int_equal(datadir_make("", NULL), SOV_ERR_INVALID);
}

static void test_processes_that_start_together_have_one_key(void **state)
{
    (void)state;
    enum { PROCESSES = 8 };
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    for (int i = 0; i < PROCESSES; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct identity *id;
            bool ok = identity_open(folder, &id, NULL) == SOV_OK &&
                      write(pipes[1], identity_public(id), IDENTITY_PUBLIC_BYTES) ==
                          IDENTITY_PUBLIC_BYTES;
            _exit(ok ? 0 : 1);
        }
    }
    unsigned char keys[PROCESSES][IDENTITY_PUBLIC_BYTES];
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        wait(&status);
        assert_int_equal(status, 0);
    }
    assert_int_equal(read(pipes[0], keys, sizeof keys), sizeof keys);
    for (int i = 1; i < PROCESSES; i++) assert_memory_equal(keys[0], keys[i], sizeof keys[0]);
    close(pipes[0]);
    close(pipes[1]);
}

/* A full disk: files of this process can have so many bytes, fewer than a key takes. */
static void test_on_a_full_disk_nothing_half_is_left(void **state)
{
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit limit = {50, 50};
        struct identity *id;
        struct sov_errbuf err = {""};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        bool ok = identity_open(folder, &id, &err) == SOV_ERR_IO && id == NULL &&
                  strstr(err.message, "cannot be written") != NULL;
        _exit(ok ? 0 : 1);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(rmdir(folder), 0); /* it is empty */
    identity_close(open_good());
}

static void test_without_memory(void **state)
{
    (void)state;
    struct identity *id;
    sov_mem_fail_after(0, false);
    assert_int_equal(identity_open(folder, &id, NULL), SOV_ERR_NOMEM);
    sov_mem_fail_after(-1, false);
    id = open_good();
    unsigned char signature[IDENTITY_SIGNATURE_BYTES];
    bool good;
    sov_mem_fail_after(0, true);
    assert_int_equal(identity_sign(id, "a", "b", 1, signature, NULL), SOV_ERR_NOMEM);
    assert_int_equal(identity_verify(identity_public(id), "a", "b", 1, signature, &good, NULL),
                     SOV_ERR_NOMEM);
    sov_mem_fail_after(-1, false);
    identity_close(id);
}

static void test_the_usual_folder(void **state)
{
    (void)state;
    char out[64];
    setenv("XDG_STATE_HOME", "/state", 1);
    setenv("HOME", "/home/me", 1);
    assert_int_equal(datadir_default(out, sizeof out, NULL), SOV_OK);
    assert_string_equal(out, "/state/sovereign");
    setenv("XDG_STATE_HOME", "not/absolute", 1);
    assert_int_equal(datadir_default(out, sizeof out, NULL), SOV_OK);
    assert_string_equal(out, "/home/me/.local/state/sovereign");
    assert_int_equal(datadir_default(out, 8, NULL), SOV_ERR_NOT_FOUND);
    unsetenv("XDG_STATE_HOME");
    unsetenv("HOME");
    assert_int_equal(datadir_default(out, sizeof out, NULL), SOV_ERR_NOT_FOUND);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    if (sodium_init() < 0) return 1;
    const struct CMUnitTest tests[] = {
        TEST(test_made_at_first_use_and_kept),
        TEST(test_two_nodes_have_two_keys),
        TEST(test_signatures_are_ed25519_over_domain_and_message),
        TEST(test_a_signature_is_for_one_purpose_and_one_message),
        TEST(test_a_key_that_others_may_read_is_refused),
        TEST(test_a_folder_that_others_may_write_to_is_refused),
        TEST(test_damaged_files_are_refused_and_kept),
        TEST(test_what_is_no_file_is_refused),
        TEST(test_what_is_no_folder_is_refused),
        TEST(test_processes_that_start_together_have_one_key),
        TEST(test_on_a_full_disk_nothing_half_is_left),
        TEST(test_without_memory),
        TEST(test_the_usual_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
