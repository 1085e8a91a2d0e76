/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and replacing whole files, and what is left when that fails. */
#include <dirent.h>
#include <fcntl.h>
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
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

static char folder[256], path[300];

static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/file-XXXXXX",
             tmp != NULL && strlen(tmp) < 200 ? tmp : "/tmp");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/it", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    rmdir(folder);
    return 0;
}

static int entries(void)
{
    DIR *d = opendir(folder);
    int count = -2; /* . and .. */
    assert_non_null(d);
    while (readdir(d) != NULL) count++;
    closedir(d);
    return count;
}

static void expect_content(const char *want)
{
    struct strbuf got = {0};
    struct sov_errbuf err = {""};
    if (file_read(path, 1000, &got, &err) != SOV_OK) fail_msg("%s", err.message);
    assert_string_equal(strbuf_text(&got), want);
    strbuf_free(&got);
}

static void a_file_is_replaced_whole(void **state)
{
    (void)state;
    struct sov_errbuf err;
    struct stat st;
    assert_int_equal(file_replace(path, "one", 3, &err), SOV_OK);
    expect_content("one");
    assert_int_equal(file_replace(path, "second", 6, &err), SOV_OK);
    expect_content("second");
    assert_int_equal(entries(), 1);
    mode_t mask = umask(0);
    umask(mask);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0666 & ~mask);
}

static void what_fails_leaves_the_old_file(void **state)
{
    (void)state;
    struct sov_errbuf err;
    static char large[100000];
    struct rlimit before, small = {.rlim_cur = 50000};
    assert_int_equal(file_replace(path, "old", 3, &err), SOV_OK);
    /* A file that may not grow is what a full disk looks like. */
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum sov_error rc = file_replace(path, large, sizeof large, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(rc, SOV_ERR_IO);
    assert_non_null(strstr(err.message, path));
    expect_content("old");
    assert_int_equal(entries(), 1);
    assert_int_equal(file_replace("/no/such/folder/x", "a", 1, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "/no/such/folder/x"));
    assert_int_equal(file_replace(folder, "a", 1, &err), SOV_ERR_IO); /* a folder is no file */
    assert_int_equal(entries(), 1);
}

static void a_link_stays_and_what_it_points_to_is_replaced(void **state)
{
    (void)state;
    struct sov_errbuf err;
    struct stat st;
    char link[320];
    snprintf(link, sizeof link, "%s-link", path);
    assert_int_equal(file_replace(path, "old", 3, &err), SOV_OK);
    assert_int_equal(symlink(path, link), 0);
    assert_int_equal(file_replace(link, "new", 3, &err), SOV_OK);
    expect_content("new");
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(unlink(link), 0);
    assert_int_equal(entries(), 1);
}

/* Root, who may replace anything, must not lose a device such as /dev/full to an output file. */
static void what_is_no_file_is_written_into(void **state)
{
    (void)state;
    struct sov_errbuf err;
    struct stat st;
    char got[16] = "";
    assert_int_equal(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(reader >= 0);
    assert_int_equal(file_replace(path, "text", 4, &err), SOV_OK);
    assert_int_equal(read(reader, got, sizeof got), 4);
    assert_string_equal(got, "text");
    close(reader);
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    assert_int_equal(entries(), 1);
    if (stat("/dev/full", &st) != 0 || !S_ISCHR(st.st_mode)) return;
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/dev/full", path), 0);
    assert_int_equal(file_replace(path, "text", 4, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(stat("/dev/full", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
}

static void reading_is_bounded(void **state)
{
    (void)state;
    struct sov_errbuf err;
    struct strbuf text = {0};
    assert_int_equal(file_replace(path, "0123456789", 10, &err), SOV_OK);
    assert_int_equal(file_read(path, 10, &text, &err), SOV_OK);
    assert_int_equal(file_read(path, 9, &text, &err), SOV_ERR_LIMIT);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(file_read(folder, 10, &text, &err), SOV_ERR_IO);
    strbuf_free(&text);
    text = (struct strbuf){0};
    (void)sov_mem_fail_after(0, true);
    enum sov_error rc = file_read(path, 10, &text, &err);
    (void)sov_mem_fail_after(-1, false);
    assert_int_equal(rc, SOV_ERR_NOMEM);
    strbuf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_is_replaced_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(what_fails_leaves_the_old_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_link_stays_and_what_it_points_to_is_replaced, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_no_file_is_written_into, setup, teardown),
        cmocka_unit_test_setup_teardown(reading_is_bounded, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
