/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who agrees to a change of the configuration. A member's key alone must not be enough to add or remove
 * others, so every member judges a change by what its own operator wrote down: valid is what is in the
 * file of approved changes, to the letter. What a quorum has approved is committed; what fewer have is
 * not prepared by the others and falls with the view in which it was proposed.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "base/file.h"
#include "federation/node_internal.h"

enum { APPROVED_BYTES_MAX = 1 << 20 };

static const char *const KINDS[] = {
    [MESSAGE_CHANGE_ADD] = "add",
    [MESSAGE_CHANGE_REMOVE] = "remove",
    [MESSAGE_CHANGE_REKEY] = "rekey",
};

bool fed_change_write(const struct message_change *change, struct strbuf *out)
{
    char key[2 * MESSAGE_KEY_BYTES + 1];
    sodium_bin2hex(key, sizeof key, change->key, sizeof change->key);
    strbuf_printf(out, "%s %u %s", KINDS[change->kind], change->seat, key);
    if (change->address_length > 0)
        strbuf_printf(out, " %.*s", change->address_length, change->address);
    return !strbuf_failed(out);
}

/* The next word of *text, NULL at its end; *text is left behind it. */
static char *next_word(char **text)
{
    char *begin = *text + strspn(*text, " \t\n");
    if (*begin == '\0') return NULL;
    char *end = begin + strcspn(begin, " \t\n");
    *text = *end != '\0' ? end + 1 : end;
    *end = '\0';
    return begin;
}

static enum sov_error parse(char *text, struct message_change *out, struct sov_errbuf *err)
{
    char *kind = next_word(&text), *seat = next_word(&text), *key = next_word(&text),
         *address = next_word(&text), *end;
    *out = (struct message_change){.kind = 0};
    for (int i = MESSAGE_CHANGE_ADD; kind != NULL && i <= MESSAGE_CHANGE_REKEY; i++)
        if (strcmp(kind, KINDS[i]) == 0) out->kind = (enum message_change_kind)i;
    if (out->kind == 0)
        return sov_fail(err, SOV_ERR_INVALID, "a change begins with 'add', 'remove' or 'rekey'");
    unsigned long number = seat != NULL ? strtoul(seat, &end, 10) : 0;
    if (seat == NULL || *seat < '0' || *seat > '9' || *end != '\0' || number >= MESSAGE_SEATS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "a member's id is a number from 0 to %d",
                        MESSAGE_SEATS_MAX - 1);
    out->seat = (uint8_t)number;
    size_t length;
    if (key == NULL ||
        sodium_hex2bin(out->key, sizeof out->key, key, strlen(key), NULL, &length, NULL) != 0 ||
        length != sizeof out->key || strlen(key) != 2 * sizeof out->key)
        return sov_fail(err, SOV_ERR_INVALID, "a public key is %d hexadecimal digits",
                        2 * MESSAGE_KEY_BYTES);
    if ((out->kind == MESSAGE_CHANGE_REMOVE) != (address == NULL))
        return sov_fail(err, SOV_ERR_INVALID, "an address belongs to 'add' and 'rekey'");
    if (address == NULL) return SOV_OK;
    char host[FED_HOST_BYTES_MAX];
    uint16_t port;
    length = strlen(address);
    if (length > MESSAGE_ADDRESS_MAX)
        return sov_fail(err, SOV_ERR_INVALID, "an address has at most %d bytes",
                        MESSAGE_ADDRESS_MAX);
    memcpy(out->address, address, length);
    out->address_length = (uint8_t)length;
    return fed_address_split(address, length, host, &port, err);
}

enum sov_error fed_change_read(const char *text, struct message_change *out, struct sov_errbuf *err)
{
    struct strbuf copy = {0};
    if (!strbuf_puts(&copy, text))
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for a change of the configuration");
    enum sov_error rc = parse(copy.data, out, err);
    strbuf_free(&copy);
    return rc;
}

enum sov_error fed_change_approve(const char *data_dir, const struct message_change *change,
                                  struct sov_errbuf *err)
{
    char path[PATH_MAX];
    struct strbuf line = {0};
    int n = snprintf(path, sizeof path, "%s/" NODE_APPROVED_FILE, data_dir);
    if (n < 0 || n >= (int)sizeof path)
        return sov_fail(err, SOV_ERR_INVALID, "%s: the path is too long", data_dir);
    if (!fed_change_write(change, &line) || !strbuf_putc(&line, '\n')) {
        strbuf_free(&line);
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for a change of the configuration");
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && file_write_all(fd, line.data, line.length);
    enum sov_error rc = ok ? SOV_OK : sov_fail(err, SOV_ERR_IO, "%s: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    strbuf_free(&line);
    return rc;
}

bool node_change_approved(const struct fed_node *node, const struct message_change *change)
{
    char path[PATH_MAX];
    struct strbuf wanted = {0}, approved = {0};
    bool found = false;
    int n = snprintf(path, sizeof path, "%s/" NODE_APPROVED_FILE, datadir_path(node->dir));
    bool ok = n > 0 && n < (int)sizeof path && strbuf_putc(&wanted, '\n') &&
              fed_change_write(change, &wanted) && strbuf_putc(&wanted, '\n') &&
              strbuf_putc(&approved, '\n') &&
              file_read(path, APPROVED_BYTES_MAX, &approved, NULL) == SOV_OK;
    if (ok) found = strstr(approved.data, wanted.data) != NULL;
    strbuf_free(&wanted);
    strbuf_free(&approved);
    return found;
}
