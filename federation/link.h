/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links: the connections of a node to the other members. There is one link per peer; whole messages
 * go in and come out, encrypted and authenticated on the way (channel.h).
 *
 * - Everybody dials whoever it has no link to, again and again: the pause doubles from try to try, up
 *   to a bound, and is drawn by lot, so that nodes which started together do not stay in step. When
 *   two nodes dial each other at the same time, both keep the connection that the one with the
 *   greater key dialed (link_conn.c says how that stays right when one of them was started anew).
 * - Every wait ends: for a connection, a handshake, a sign of life (silent links are pinged), and
 *   for a peer that does not read.
 * - Messages to a peer wait in a bounded queue (link_queue.h); the oldest are dropped, and counted,
 *   when it is full or they have become old. The protocol above repeats what matters.
 * - A message that the node cannot take now is held, and nothing more is read from that peer until
 *   links_resume: TCP tells the peer to wait. Pings are not read either then, so holding must be
 *   short against silence_ms of the others, or they see a dead link and dial again.
 * - The log names a peer only once it has been without a link for a while, and again when it is back:
 *   nodes that start, or are started anew, miss each other for a moment. A refusal is named at once.
 * - Strangers are limited (link_guard.h), and so is what a peer can make us hold: one message being
 *   received, FRAME_BYTES_MAX, in a buffer of up to twice that.
 *
 * Threads: that of the loop. Callbacks are called on it, never from inside links_send.
 */
#ifndef SOV_FEDERATION_LINK_H
#define SOV_FEDERATION_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "federation/channel.h"
#include "federation/link_queue.h"
#include "federation/loop.h"

enum {
    LINK_PEERS_MAX = 64,
    LINK_REVOKED_MAX = 1024,
    LINK_HOST_MAX = 256, /* with the zero */
    LINK_QUEUE_COUNT_MAX = 4096,
    LINK_QUEUE_BYTES_MAX = 16 << 20,
};

struct links;

/* Milliseconds; 0 stands for the value named here. */
struct link_times {
    int connect_ms;    /* 2000: until TCP connects */
    int handshake_ms;  /* 3000: from then until the peer is proven */
    int ping_ms;       /* 1000: how often a link is pinged */
    int silence_ms;    /* 4000: of the peer's, then the link is given up */
    int stall_ms;      /* 10000: without the peer taking a byte, then too */
    int stale_ms;      /* 5000: the age at which a queued message is dropped */
    int redial_ms;     /* 50: the first pause, which doubles with each try that fails */
    int redial_ms_max; /* 2000 */
    int steady_ms;     /* 2000: a link that lived for less counts as a try that failed */
    int quiet_ms;      /* 5000: without a link, then the log says so */
};

struct link_options {
    struct loop *loop; /* outlives the links */
    unsigned char federation[CHANNEL_FEDERATION_BYTES];
    unsigned char key[CHANNEL_KEY_BYTES];
    bool (*sign)(void *user, const char *domain, const void *message, size_t length,
                 unsigned char signature[CHANNEL_SIGNATURE_BYTES]);
    const char *host; /* to listen on; NULL: only dials */
    int port;         /* 0: any free one, see links_port */
    struct link_times times;
    uint64_t rekey_bytes;                    /* 0: CHANNEL_REKEY_BYTES */
    size_t queue_count_max, queue_bytes_max; /* 0: the constants above */
    /* A message of a peer; bytes are the callee's until it returns. False: hold it (see above). */
    bool (*receive)(void *user, int peer, unsigned char *bytes, size_t length);
    /* A link came up, or went down. NULL: nobody needs to know. */
    void (*changed)(void *user, int peer, bool up);
    void *user;
};

struct link_peer {
    int id; /* 0 to LINK_PEERS_MAX - 1, what callbacks call it */
    unsigned char key[CHANNEL_KEY_BYTES];
    char host[LINK_HOST_MAX]; /* "": is not dialed, it dials us */
    int port;
};

/* SOV_ERR_IO (the port), SOV_ERR_INVALID, SOV_ERR_NOMEM. No peers yet: everybody is unknown. */
enum sov_error links_create(const struct link_options *options, struct links **out,
                            struct sov_errbuf *err);
void links_free(struct links *links);
/* The port that is listened on. */
int links_port(const struct links *links);

/*
 * From now on these are the peers (without this node), and these keys are refused as revoked. Links
 * of keys that stay, stay; all others end. SOV_ERR_INVALID, SOV_ERR_NOMEM: all is as before.
 */
enum sov_error links_configure(struct links *links, const struct link_peer *peers, int count,
                               const unsigned char (*revoked)[CHANNEL_KEY_BYTES], int revoked_count,
                               struct sov_errbuf *err);

/* Queues it (with a reference of the queue's own); unknown ids are ignored. Sent in this turn. */
void links_send(struct links *links, int peer, struct link_message *message);
/* Sends what is queued now, as far as it goes: before work that takes long. */
void links_flush(struct links *links);
/* Gives what was held to receive again, and goes on reading. */
void links_resume(struct links *links, int peer);

struct link_stats {
    bool up;
    bool dialed;       /* by this node */
    int64_t since_ns;  /* when it came up, clock_monotonic_ns */
    uint64_t connects; /* times that it came up */
    uint64_t failures; /* tries to dial that failed */
    uint64_t messages_in, messages_out;
    uint64_t bytes_in, bytes_out; /* on the wire, handshakes without */
    uint64_t overflowed, stale;   /* messages dropped: the queue was full, they were old */
    uint64_t queued, queued_bytes;
    int64_t round_trip_ns;        /* of the last ping; 0: none yet */
    enum channel_refusal refusal; /* of the last try; CHANNEL_ADMITTED: none */
    char trouble[160];            /* why there is no link, or why the last one ended; "": nothing */
};

struct links_totals {
    uint64_t accepted;    /* connections of others */
    uint64_t turned_away; /* at once, by link_guard.h */
    uint64_t pushed_out;  /* handshakes that were ended for newer ones */
    uint64_t unfinished;  /* handshakes that others began and that came to nothing otherwise */
    uint64_t refused[CHANNEL_REFUSALS]; /* by us, by reason */
};

/* false: no such peer. */
bool links_stats(const struct links *links, int peer, struct link_stats *out);
void links_totals(const struct links *links, struct links_totals *out);

#endif
