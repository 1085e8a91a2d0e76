/* SPDX-License-Identifier: Apache-2.0 */
/*
 * federation.json from anyone: what is read is within its limits, a core takes it, and what is written from
 * it is read as the same; what is not read has a message.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "federation/config.h"

static void require(bool condition)
{
    if (!condition) abort();
}

static void no_signature(void *user, const struct message_digest *digest,
                         uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    (void)user;
    (void)digest;
    memset(signature, 0, MESSAGE_SIGNATURE_BYTES);
}

/* A window and a federation of the largest size take tens of megabytes: not for each input. */
static bool is_small(const struct fed_config *config)
{
    return config->member_count <= 8 && config->core.limits.window <= 32 &&
           config->core.limits.batch_bytes_max <= 1 << 14;
}

static void check(const struct fed_config *config)
{
    struct fed_config again;
    struct strbuf text = {0};
    struct sov_errbuf err = {""};
    require(config->member_count >= PBFT_MEMBERS_MIN && config->member_count <= PBFT_MEMBERS_MAX);
    for (uint32_t i = 0; i < config->member_count; i++) {
        const struct message_member *m = &config->members[i];
        char host[FED_HOST_BYTES_MAX];
        uint16_t port;
        require(m->active && m->seat < MESSAGE_SEATS_MAX && m->address_length > 0);
        require(i == 0 || m->seat > config->members[i - 1].seat);
        require(fed_address_split(m->address, m->address_length, host, &port, &err) == SOV_OK);
        require(port > 0 && host[0] != '\0' && strlen(host) < m->address_length);
        require(fed_config_find(config, m->key) == m->seat);
    }
    require(fed_config_write(config, &text));
    require(fed_config_read(text.data, text.length, &again, &err) == SOV_OK);
    require(memcmp(&again.federation, &config->federation, sizeof again.federation) == 0);
    require(memcmp(again.members, config->members, sizeof again.members) == 0);
    require(memcmp(&again.core.limits, &config->core.limits, sizeof again.core.limits) == 0);
    strbuf_free(&text);
    if (!is_small(config)) return;
    struct pbft_config core;
    struct pbft *pbft;
    fed_config_core(config, config->members[0].seat, &core);
    core.sign = no_signature;
    require(pbft_create(&core, &pbft, &err) == SOV_OK);
    pbft_free(pbft);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fed_config config;
    struct sov_errbuf err = {""};
    char host[FED_HOST_BYTES_MAX];
    uint16_t port;
    if (fed_config_read((const char *)data, size, &config, &err) == SOV_OK)
        check(&config);
    else
        require(err.message[0] != '\0');
    if (fed_address_split((const char *)data, size, host, &port, &err) == SOV_OK)
        require(port > 0 && strlen(host) > 0 && strlen(host) < size);
    return 0;
}
