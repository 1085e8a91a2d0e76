/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: how bytes of a TCP connection between two members are cut into messages.
 *
 *     length   4 bytes, little-endian: of the payload alone
 *     version  1 byte: FRAME_VERSION, of this layout
 *     kind     1 byte: enum frame_kind
 *     payload
 *
 * A reader judges the header as soon as there is enough of it, so that what cannot be a frame (another
 * protocol on the port, a length beyond what is allowed at that moment) costs a few bytes, and a
 * length alone never makes anybody allocate memory. Pure functions; threads: any.
 */
#ifndef SOV_FEDERATION_FRAME_H
#define SOV_FEDERATION_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    FRAME_VERSION = 1,
    FRAME_HEADER_BYTES = 6,
    FRAME_BYTES_MAX = 2 << 20, /* of a message between members, before it is encrypted */
};

enum frame_kind {
    /* The handshake, in the clear (channel.h). */
    FRAME_HELLO = 1,
    FRAME_CHALLENGE,
    FRAME_PROOF,
    FRAME_READY,
    FRAME_REFUSE,
    /* Encrypted. */
    FRAME_DATA,
    FRAME_PING,
    FRAME_PONG,
    FRAME_KINDS,
};

/* A short name, "?" for what is not a kind. */
const char *frame_kind_name(int kind);

struct frame {
    enum frame_kind kind;
    uint32_t length; /* of the payload, which begins FRAME_HEADER_BYTES behind the frame */
};

void frame_header_write(unsigned char header[FRAME_HEADER_BYTES], enum frame_kind kind,
                        uint32_t length);

enum frame_state {
    FRAME_MORE,  /* what is there is the beginning of a frame */
    FRAME_WHOLE, /* the frame is there */
    FRAME_BAD,   /* no frame begins so */
};

/* payload_max: the longest payload that is taken. err says why it is bad. */
enum frame_state frame_read(const unsigned char *bytes, size_t available, uint32_t payload_max,
                            struct frame *out, struct sov_errbuf *err);

#endif
