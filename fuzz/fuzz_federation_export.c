/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines of an exported log from anyone. What is read decodes to a message that is exported as the line's
 * own canonical form, but for digest and head, which are computed; what is not read has a message.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "federation/export.h"

static void require(bool condition)
{
    if (!condition) abort();
}

static struct message_scratch *scratch(void)
{
    static struct message_scratch s, *made;
    struct message_limits limits = message_limits_default;
    struct message_digest federation = {{1}};
    if (made != NULL) return made;
    require(message_scratch_init(&s, &limits, &federation, NULL) == SOV_OK);
    made = &s;
    return made;
}

static void check_entry(const struct fed_import *import)
{
    struct message m;
    struct sov_errbuf err = {""};
    struct strbuf line = {0};
    struct fed_import again = {0};
    enum sov_error error = message_decode((const uint8_t *)import->encoded.data,
                                          import->encoded.length, scratch(), &m, &err);
    if (error != SOV_OK) {
        require(err.message[0] != '\0');
        return;
    }
    require(m.kind == MESSAGE_LOG_ENTRY && m.sequence == import->sequence);
    require(fed_export_entry(&m, &import->head, &line));
    require(line.length > 0 && line.data[line.length - 1] == '\n');
    require(fed_import_entry(line.data, line.length - 1, scratch(), &again, &err) == SOV_OK);
    require(again.encoded.length == import->encoded.length &&
            memcmp(again.encoded.data, import->encoded.data, again.encoded.length) == 0);
    /* What is written is canonical already. */
    require(again.text.length == line.length - 1 &&
            memcmp(again.text.data, line.data, again.text.length) == 0);
    fed_import_free(&again);
    strbuf_free(&line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fed_export_header header, again;
    struct fed_import import = {0};
    struct sov_errbuf err = {""};
    struct strbuf line = {0};
    if (fed_import_header((const char *)data, size, &header, &err) == SOV_OK) {
        require(fed_export_header(&header, &line));
        require(fed_import_header(line.data, line.length - 1, &again, &err) == SOV_OK);
        require(again.batches == header.batches &&
                memcmp(&again.head, &header.head, sizeof again.head) == 0);
    } else {
        require(err.message[0] != '\0');
    }
    err.message[0] = '\0';
    if (fed_import_entry((const char *)data, size, scratch(), &import, &err) == SOV_OK)
        check_entry(&import);
    else
        require(err.message[0] != '\0');
    fed_import_free(&import);
    strbuf_free(&line);
    return 0;
}
