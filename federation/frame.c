/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/frame.h"

static const char *const KIND_NAMES[FRAME_KINDS] = {
    [FRAME_HELLO] = "hello", [FRAME_CHALLENGE] = "challenge", [FRAME_PROOF] = "proof",
    [FRAME_READY] = "ready", [FRAME_REFUSE] = "refuse",       [FRAME_DATA] = "data",
    [FRAME_PING] = "ping",   [FRAME_PONG] = "pong",
};

enum { AT_LENGTH = 0, AT_VERSION = 4, AT_KIND = 5 };

const char *frame_kind_name(int kind)
{
    return kind >= FRAME_HELLO && kind < FRAME_KINDS ? KIND_NAMES[kind] : "?";
}

void frame_header_write(unsigned char header[FRAME_HEADER_BYTES], enum frame_kind kind,
                        uint32_t length)
{
    for (int i = 0; i < AT_VERSION; i++) header[AT_LENGTH + i] = (unsigned char)(length >> (8 * i));
    header[AT_VERSION] = FRAME_VERSION;
    header[AT_KIND] = (unsigned char)kind;
}

static enum frame_state bad(struct sov_errbuf *err, const char *what, unsigned value,
                            unsigned expected)
{
    sov_fail(err, SOV_ERR_FORMAT, "a frame of %s %u, where %u was expected", what, value, expected);
    return FRAME_BAD;
}

enum frame_state frame_read(const unsigned char *bytes, size_t available, uint32_t payload_max,
                            struct frame *out, struct sov_errbuf *err)
{
    if (available < AT_VERSION) return FRAME_MORE;
    uint32_t length = 0;
    for (int i = 0; i < AT_VERSION; i++) length |= (uint32_t)bytes[AT_LENGTH + i] << (8 * i);
    if (length > payload_max) return bad(err, "length", length, payload_max);
    if (available > AT_VERSION && bytes[AT_VERSION] != FRAME_VERSION)
        return bad(err, "version", bytes[AT_VERSION], FRAME_VERSION);
    if (available > AT_KIND && (bytes[AT_KIND] < FRAME_HELLO || bytes[AT_KIND] >= FRAME_KINDS)) {
        sov_fail(err, SOV_ERR_FORMAT, "a frame of unknown kind %u", bytes[AT_KIND]);
        return FRAME_BAD;
    }
    if (available < FRAME_HEADER_BYTES || available - FRAME_HEADER_BYTES < length)
        return FRAME_MORE;
    *out = (struct frame){.kind = (enum frame_kind)bytes[AT_KIND], .length = length};
    return FRAME_WHOLE;
}
