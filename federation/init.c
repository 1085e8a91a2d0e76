/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/init.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/datadir.h"
#include "base/file.h"
#include "base/identity.h"
#include "federation/store_message.h"

enum { NODE_PATH_MAX = PATH_MAX - 32 /* so that names within have room */ };

static enum sov_error node_path(const struct fed_init_options *options, uint32_t node,
                                char path[NODE_PATH_MAX], struct sov_errbuf *err)
{
    int length = snprintf(path, NODE_PATH_MAX, "%s/node%u", options->folder, node);
    return length < NODE_PATH_MAX
               ? SOV_OK
               : sov_fail(err, SOV_ERR_INVALID, "%.100s...: the path is too long", options->folder);
}

static enum sov_error check(const struct fed_init_options *options, struct sov_errbuf *err)
{
    char path[NODE_PATH_MAX], address[FED_HOST_BYTES_MAX + 16], host[FED_HOST_BYTES_MAX];
    uint16_t port;
    struct stat st;
    struct sov_errbuf why;
    if (options->nodes < PBFT_MEMBERS_MIN || options->nodes > PBFT_MEMBERS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "a federation has %d to %d nodes, not %u",
                        PBFT_MEMBERS_MIN, PBFT_MEMBERS_MAX, options->nodes);
    if (options->base_port == 0 || options->base_port + options->nodes - 1 > UINT16_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "ports %u to %u: a port is 1 to 65535",
                        options->base_port, options->base_port + options->nodes - 1);
    int length = snprintf(address, sizeof address, "%s:%u", options->host,
                          options->base_port + options->nodes - 1);
    if (length >= (int)sizeof address ||
        fed_address_split(address, (size_t)length, host, &port, &why) != SOV_OK)
        return sov_fail(err, SOV_ERR_INVALID,
                        "'%.64s' is no host: a name or an IPv4 address, or an IPv6 address in "
                        "brackets",
                        options->host);
    for (uint32_t i = 0; i < options->nodes; i++) {
        enum sov_error error = node_path(options, i, path, err);
        if (error != SOV_OK) return error;
        if (lstat(path, &st) == 0)
            return sov_fail(err, SOV_ERR_INVALID,
                            "%s: is there already, and nothing is overwritten; use another folder",
                            path);
        if (errno != ENOENT && errno != ENOTDIR)
            return sov_fail(err, SOV_ERR_IO, "%s: %s", path, strerror(errno));
    }
    return SOV_OK;
}

static enum sov_error make_key(const struct fed_init_options *options, uint32_t node,
                               struct message_member *member, struct sov_errbuf *err)
{
    char path[NODE_PATH_MAX];
    struct identity *identity = NULL;
    enum sov_error error = node_path(options, node, path, err);
    if (error == SOV_OK) error = identity_open(path, &identity, err);
    if (error != SOV_OK) return error;
    *member = (struct message_member){.seat = (uint8_t)node, .active = true};
    memcpy(member->key, identity_public(identity), sizeof member->key);
    member->address_length = (uint8_t)snprintf(member->address, sizeof member->address, "%s:%u",
                                               options->host, options->base_port + node);
    identity_close(identity);
    return SOV_OK;
}

static enum sov_error make_files(const struct fed_init_options *options, uint32_t node,
                                 const struct fed_config *config, const struct strbuf *text,
                                 struct sov_errbuf *err)
{
    char path[NODE_PATH_MAX], file[PATH_MAX], owner[FED_STORE_OWNER_BYTES_MAX];
    enum sov_error error = node_path(options, node, path, err);
    if (error != SOV_OK) return error;
    snprintf(file, sizeof file, "%s/" FED_CONFIG_FILE, path);
    error = file_replace(file, text->data, text->length, err);
    if (error != SOV_OK) return error;
    struct fed_store_options store = {.chain = fed_store_chain, .owner = owner};
    fed_store_owner((uint8_t)node, owner);
    memcpy(store.federation, config->federation.bytes, sizeof store.federation);
    return fed_store_create(path, &store, err);
}

/* Only what may have been made here: `check` saw that none of the folders was there. */
static void take_away(const struct fed_init_options *options)
{
    static const char *const FILES[] = {IDENTITY_FILE, FED_CONFIG_FILE, FED_STORE_FILE,
                                        FED_STORE_FILE "-wal", FED_STORE_FILE "-shm"};
    char path[NODE_PATH_MAX], file[PATH_MAX];
    for (uint32_t i = 0; i < options->nodes; i++) {
        if (node_path(options, i, path, NULL) != SOV_OK) return;
        for (size_t k = 0; k < sizeof FILES / sizeof FILES[0]; k++) {
            snprintf(file, sizeof file, "%s/%s", path, FILES[k]);
            (void)unlink(file);
        }
        (void)rmdir(path);
    }
}

enum sov_error fed_init(const struct fed_init_options *options, struct fed_config *config,
                        struct sov_errbuf *err)
{
    struct strbuf text = {0};
    enum sov_error error = check(options, err);
    if (error != SOV_OK) return error;
    fed_config_defaults(config);
    for (uint32_t i = 0; i < options->nodes && error == SOV_OK; i++)
        error = make_key(options, i, &config->members[i], err);
    if (error == SOV_OK) {
        config->member_count = options->nodes;
        fed_config_identify(config);
        if (!fed_config_write(config, &text))
            error = sov_fail(err, SOV_ERR_NOMEM, "no memory for " FED_CONFIG_FILE);
    }
    for (uint32_t i = 0; i < options->nodes && error == SOV_OK; i++)
        error = make_files(options, i, config, &text, err);
    if (error != SOV_OK) take_away(options);
    strbuf_free(&text);
    return error;
}
