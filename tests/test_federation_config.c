/* SPDX-License-Identifier: Apache-2.0 */
/*
 * federation.json: what is written is read again, every error names its field; and the folders that
 * `sovereign federation init` makes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/identity.h"
#include "base/mem.h"
#include "federation/init.h"
#include "federation/store_message.h"

enum { TEXT_MAX = 16384, PATH_BYTES = 600 };

static const char GOLDEN[] = "tests/data/federation/federation.json";

static void read_golden(char text[TEXT_MAX])
{
    struct strbuf buf = {0};
    struct sov_errbuf err;
    if (file_read(GOLDEN, TEXT_MAX - 1, &buf, &err) != SOV_OK) fail_msg("%s", err.message);
    memcpy(text, buf.data, buf.length + 1);
    strbuf_free(&buf);
}

/* The committed file with the first `from` in it replaced. */
static enum sov_error read_changed(const char *from, const char *to, struct fed_config *config,
                                   struct sov_errbuf *err)
{
    static char golden[TEXT_MAX], text[TEXT_MAX];
    read_golden(golden);
    const char *at = strstr(golden, from);
    if (at == NULL) fail_msg("%s is not in the file", from);
    int length =
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - golden), golden, to, at + strlen(from));
    return fed_config_read(text, (size_t)length, config, err);
}

static void assert_wrong(const char *from, const char *to, const char *says)
{
    struct fed_config config;
    struct sov_errbuf err = {""};
    enum sov_error error = read_changed(from, to, &config, &err);
    if (error != SOV_ERR_FORMAT || strstr(err.message, says) == NULL)
        fail_msg("%s -> %s: %s: %s", from, to, sov_error_name(error), err.message);
}

static void test_what_is_written_is_read_again(void **state)
{
    (void)state;
    struct fed_config config, again;
    struct strbuf text = {0}, second = {0};
    struct sov_errbuf err;
    if (fed_config_load(GOLDEN, &config, &err) != SOV_OK) fail_msg("%s", err.message);
    assert_int_equal(config.member_count, 4);
    assert_int_equal(config.core.checkpoint_interval, 8);
    assert_int_equal(config.core.limits.window, 16);
    assert_int_equal(config.core.view_timeout_ms, PBFT_VIEW_TIMEOUT_MS);
    assert_int_equal(config.members[2].seat, 2);
    assert_memory_equal(config.members[2].address, "10.0.0.3:7100", 13);
    assert_int_equal(config.members[2].address_length, 13);
    assert_true(fed_config_write(&config, &text));
    assert_int_equal(fed_config_read(text.data, text.length, &again, &err), SOV_OK);
    assert_true(fed_config_write(&again, &second));
    assert_string_equal(text.data, second.data);
    assert_memory_equal(again.federation.bytes, config.federation.bytes, 32);
    strbuf_free(&text);
    strbuf_free(&second);
}

static void test_a_core_takes_what_a_config_says(void **state)
{
    (void)state;
    struct fed_config config;
    struct pbft_config core;
    struct sov_errbuf err;
    assert_int_equal(fed_config_load(GOLDEN, &config, &err), SOV_OK);
    fed_config_core(&config, 3, &core);
    assert_int_equal(core.seat, 3);
    assert_int_equal(core.member_count, 4);
    assert_int_equal(core.limits.window, 16);
    assert_memory_equal(core.federation.bytes, config.federation.bytes, 32);
    assert_int_equal(fed_config_find(&config, config.members[1].key), 1);
    uint8_t nobody[MESSAGE_KEY_BYTES] = {0};
    assert_int_equal(fed_config_find(&config, nobody), -1);
}

static void test_addresses_and_timing_may_be_edited_keys_and_limits_may_not(void **state)
{
    (void)state;
    struct fed_config config;
    struct sov_errbuf err = {""};
    if (read_changed("10.0.0.1:7100", "[fe80::1%eth0]:9", &config, &err) != SOV_OK)
        fail_msg("%s", err.message);
    if (read_changed("\"resend_ms\": 100", "\"resend_ms\": 50", &config, &err) != SOV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(config.core.resend_ms, 50);
    if (read_changed("\"resend_ms\": 100,", "", &config, &err) != SOV_OK)
        fail_msg("%s", err.message);
    assert_int_equal(config.core.resend_ms, PBFT_RESEND_MS);
    assert_wrong("\"batch_requests\": 1024", "\"batch_requests\": 1000",
                 "'federation' is not the id of these members and limits");
    assert_wrong("\"window\": 16,", "", "'federation' is not the id");
    char golden[TEXT_MAX], from[80], to[80];
    read_golden(golden);
    const char *key = strstr(golden, "\"public_key\": \"") + 15;
    snprintf(from, sizeof from, "%.64s", key);
    snprintf(to, sizeof to, "%.63s%c", key, key[63] == '0' ? '1' : '0');
    assert_wrong(from, to, "take the file of another node");
}

static void test_every_error_names_its_field(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } CASES[] = {
        {"{", "[", "not valid JSON"},
        {"\"version\": 1", "\"version\": 1, \"version\": 1", "duplicate"},
        {"\"version\": 1,", "", "'version' must be a whole number"},
        {"\"f\": 1", "\"f\": 2", "'f' must be a whole number, 1 to 1, not 2"},
        {"\"f\": 1", "\"g\": 1", "unknown field 'g'"},
        {"\"federation\": \"", "\"federation\": \"x", "'federation' must be a string of 64"},
        {"\"members\": [", "\"members\": [7,", "'members[0]' must be an object, not an integer"},
        {"\"members\"", "\"limbs\"", "unknown field 'limbs'"},
        {"\"id\": 2", "\"id\": 1", "'members[2].id' must be above that of the member before, 1"},
        {"\"id\": 2", "\"id\": 64", "'members[2].id' must be a whole number, 0 to 63, not 64"},
        {"\"id\": 2", "\"id\": \"2\"", "'members[2].id' must be a whole number, 0 to 63, not a "},
        {"\"id\": 2", "\"id\": 2, \"name\": \"x\"", "unknown field 'members[2].name'"},
        {"10.0.0.3:7100", "10.0.0.3", "'members[2].address' must be 'host:port'"},
        {"10.0.0.3:7100", "10.0.0.3:65536", "'members[2].address' must be 'host:port'"},
        {"10.0.0.3:7100", "10.0.0.3:07100", "'members[2].address' must be 'host:port'"},
        {"10.0.0.3:7100", ":7100", "'members[2].address' must be 'host:port'"},
        {"10.0.0.3:7100", "fe80::1:7100", "'members[2].address' must be 'host:port'"},
        {"10.0.0.3:7100", "a b:7100", "'members[2].address' must be 'host:port'"},
        {"\"10.0.0.3:7100\"", "null", "'members[2].address' must be a string, not null"},
        {"\"window\": 16", "\"window\": 12", "'limits.checkpoint_interval' must be a whole"},
        {"\"window\": 16", "\"window\": 20", "'limits.window' must be a multiple of 8"},
        {"\"window\": 16", "\"window\": 0", "'limits.window' must be a whole number, 1 to"},
        {"\"window\": 16", "\"window\": 512", "'limits.window' must be a whole number, 8 to 256"},
        {"\"window\": 16", "\"window\": 16.0", "'limits.window' must be a whole number"},
        {"\"window\": 16", "\"width\": 16", "unknown field 'limits.width'"},
        {"\"limits\": {", "\"limits\": 7, \"x\": {", "unknown field 'x'"},
        {"\"timing\": {", "\"timing\": [], \"limits2\": {", "unknown field"},
        {"\"resend_ms\": 100", "\"resend_ms\": 500",
         "'timing.resend_ms' must be a whole number, 1"},
        {"\"pipeline\": 4", "\"pipeline\": 17",
         "'timing.pipeline' must be a whole number, 1 to 16"},
        {"\"view_timeout_ms_max\": 60000", "\"view_timeout_ms_max\": 1",
         "'timing.view_timeout_ms_max'"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        assert_wrong(CASES[i].from, CASES[i].to, CASES[i].says);
    struct fed_config config;
    struct sov_errbuf err = {""};
    assert_int_equal(read_changed("\"version\": 1", "\"version\": 2", &config, &err),
                     SOV_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "'version' is 2; this program knows version 1 only"));
    assert_int_equal(fed_config_load("/nonexistent.json", &config, &err), SOV_ERR_IO);
    assert_non_null(strstr(err.message, "/nonexistent.json"));
}

static void test_a_key_belongs_to_one_member(void **state)
{
    (void)state;
    struct fed_config config, again;
    struct strbuf text = {0};
    struct sov_errbuf err;
    assert_int_equal(fed_config_load(GOLDEN, &config, &err), SOV_OK);
    memcpy(config.members[3].key, config.members[0].key, MESSAGE_KEY_BYTES);
    fed_config_identify(&config);
    assert_true(fed_config_write(&config, &text));
    assert_int_equal(fed_config_read(text.data, text.length, &again, &err), SOV_ERR_FORMAT);
    assert_non_null(strstr(err.message, "'members[3].public_key' is that of members[0], too"));
    strbuf_free(&text);
}

static void test_without_memory_a_config_is_not_wrong(void **state)
{
    (void)state;
    char text[TEXT_MAX];
    int failures = 0;
    read_golden(text);
    for (long after = 0; after < 2000; after++) {
        struct fed_config config;
        struct sov_errbuf err = {""};
        sov_mem_fail_after(after, true);
        enum sov_error error = fed_config_read(text, strlen(text), &config, &err);
        sov_mem_fail_after(-1, false);
        if (error == SOV_OK) break;
        if (error != SOV_ERR_NOMEM) fail_msg("%s: %s", sov_error_name(error), err.message);
        failures++;
    }
    assert_in_range(failures, 10, 1999);
}

/* ---- init ---- */

static char folder[PATH_BYTES];

static int make_folder(void **state)
{
    const char *tmp = getenv("TMPDIR");
    (void)state;
    snprintf(folder, sizeof folder, "%s/sovereign-init-XXXXXX", tmp != NULL ? tmp : "/tmp");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[PATH_BYTES + 16];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static bool is_there(const char *name)
{
    char path[2 * PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static void test_init_makes_what_each_node_needs(void **state)
{
    (void)state;
    struct fed_init_options options = {
        .folder = folder, .nodes = 7, .host = "node.example", .base_port = 9000};
    struct fed_config config, read;
    struct sov_errbuf err;
    if (fed_init(&options, &config, &err) != SOV_OK) fail_msg("%s", err.message);
    assert_int_equal(config.member_count, 7);
    for (uint32_t i = 0; i < 7; i++) {
        char path[2 * PATH_BYTES], file[3 * PATH_BYTES], address[64];
        struct identity *identity;
        struct stat st;
        snprintf(path, sizeof path, "%s/node%u", folder, i);
        snprintf(file, sizeof file, "%s/federation.json", path);
        if (fed_config_load(file, &read, &err) != SOV_OK) fail_msg("%s", err.message);
        assert_memory_equal(read.federation.bytes, config.federation.bytes, 32);
        assert_int_equal(identity_open(path, &identity, &err), SOV_OK);
        assert_int_equal(fed_config_find(&read, identity_public(identity)), i);
        identity_close(identity);
        snprintf(file, sizeof file, "%s/node.key", path);
        assert_int_equal(stat(file, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        snprintf(address, sizeof address, "node.example:%u", 9000 + i);
        assert_int_equal(read.members[i].address_length, strlen(address));
        assert_memory_equal(read.members[i].address, address, strlen(address));
        /* And a log that the node may go on with at once. */
        char owner[FED_STORE_OWNER_BYTES_MAX];
        struct datadir *dir;
        struct fed_store *store;
        struct fed_store_found found;
        struct fed_store_options store_options = {.chain = fed_store_chain, .owner = owner};
        fed_store_owner((uint8_t)i, owner);
        memcpy(store_options.federation, read.federation.bytes, 32);
        assert_int_equal(datadir_open(path, &dir, &err), SOV_OK);
        if (fed_store_open(dir, &store_options, &store, &found, &err) != SOV_OK)
            fail_msg("%s", err.message);
        assert_false(found.amnesia);
        fed_store_close(store);
        datadir_close(dir);
    }
}

static void test_init_overwrites_nothing(void **state)
{
    (void)state;
    struct fed_init_options options = {
        .folder = folder, .nodes = 4, .host = "127.0.0.1", .base_port = 7100};
    struct fed_config config;
    struct sov_errbuf err;
    char path[2 * PATH_BYTES];
    snprintf(path, sizeof path, "%s/node3", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(fed_init(&options, &config, &err), SOV_ERR_INVALID);
    assert_non_null(strstr(err.message, "node3: is there already"));
    assert_false(is_there("node0")); /* nothing is half made */
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(symlink("/nonexistent", path), 0);
    assert_int_equal(fed_init(&options, &config, &err), SOV_ERR_INVALID);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(fed_init(&options, &config, &err), SOV_OK);
    assert_int_equal(fed_init(&options, &config, &err), SOV_ERR_INVALID);
}

static void test_init_says_what_is_out_of_range(void **state)
{
    (void)state;
    static const struct {
        uint32_t nodes;
        const char *host;
        uint16_t port;
        const char *says;
    } CASES[] = {
        {3, "h", 7100, "a federation has 4 to 64 nodes, not 3"},
        {65, "h", 7100, "a federation has 4 to 64 nodes, not 65"},
        {4, "h", 0, "ports 0 to 3"},
        {4, "h", 65533, "ports 65533 to 65536"},
        {4, "", 7100, "is no host"},
        {4, "a b", 7100, "is no host"},
        {4, "::1", 7100, "is no host"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct fed_init_options options = {folder, CASES[i].nodes, CASES[i].host, CASES[i].port};
        struct fed_config config;
        struct sov_errbuf err = {""};
        assert_int_equal(fed_init(&options, &config, &err), SOV_ERR_INVALID);
        if (strstr(err.message, CASES[i].says) == NULL) fail_msg("%s", err.message);
    }
    assert_false(is_there("node0"));
}

/* In a child: what may be written is bounded for good. */
static void test_on_a_full_disk_init_leaves_nothing(void **state)
{
    (void)state;
    int status;
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {.rlim_cur = 8192, .rlim_max = 8192}; /* keys fit, logs do not */
        struct fed_init_options options = {folder, 4, "127.0.0.1", 7100};
        struct fed_config config;
        struct sov_errbuf err = {""};
        signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(1);
        enum sov_error error = fed_init(&options, &config, &err);
        _exit(error == SOV_ERR_IO && strstr(err.message, "node0") != NULL ? 0 : 2);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_false(is_there("node0"));
    assert_false(is_there("node3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read_again),
        cmocka_unit_test(test_a_core_takes_what_a_config_says),
        cmocka_unit_test(test_addresses_and_timing_may_be_edited_keys_and_limits_may_not),
        cmocka_unit_test(test_every_error_names_its_field),
        cmocka_unit_test(test_a_key_belongs_to_one_member),
        cmocka_unit_test(test_without_memory_a_config_is_not_wrong),
        cmocka_unit_test_setup_teardown(test_init_makes_what_each_node_needs, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_init_overwrites_nothing, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_init_says_what_is_out_of_range, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(test_on_a_full_disk_init_leaves_nothing, make_folder,
                                        remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
