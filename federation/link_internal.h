/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the links share: link.c (peers), link_conn.c, link_dial.c, link_accept.c. */
#ifndef SOV_FEDERATION_LINK_INTERNAL_H
#define SOV_FEDERATION_LINK_INTERNAL_H

#include "base/listen.h"
#include "base/strbuf.h"
#include "federation/link.h"
#include "federation/link_guard.h"
#include "federation/link_resolve.h"

enum conn_state {
    CONN_CONNECTING,
    CONN_HANDSHAKE,
    CONN_OPEN,
    CONN_DEAD, /* waits for the end of the turn to be freed */
};

struct peer;

/* One TCP connection. */
struct conn {
    struct links *links;
    struct conn *before, *after; /* all that are not dead, oldest first; or the dead */
    enum conn_state state;
    bool dialed;
    struct peer *peer;            /* dialed: always; called: once it is open */
    struct guard_address address; /* called: whose handshake link_guard counts */
    bool guarded;
    struct channel *channel;
    struct loop_watch watch;
    uint32_t watched; /* events */
    struct loop_timer timer;
    struct strbuf rx, tx;
    size_t rx_done, tx_done; /* from the front */
    int64_t began_ns, opened_ns, received_ns, progress_ns;
    int pings; /* and pongs that came since the timer fired last */
    /* A message that was not taken, inside rx. */
    bool holding;
    size_t held_at, held_length;
};

struct peer {
    struct links *links;
    struct link_peer config;
    struct conn *link;    /* open */
    struct conn *dialing; /* on the way to be */
    struct loop_timer redial;
    int tries;         /* that failed one after the other */
    int64_t missed_ns; /* since when there is no link */
    bool told;         /* the log says that it is missed */
    bool resolving;
    struct resolved resolved;
    struct link_queue queue;
    unsigned char instance[CHANNEL_INSTANCE_BYTES]; /* the last one met */
    struct link_stats stats;
};

struct links {
    struct link_options options;
    struct link_times times;
    struct channel_config channel;
    struct loop_hook hook;
    struct listen_socket listen;
    struct loop_watch accept;
    struct loop_timer accept_again;
    struct link_guard guard;
    struct resolver *resolver;
    struct conn *first, *last, *dead;
    struct peer *peers[LINK_PEERS_MAX];
    unsigned char (*revoked)[CHANNEL_KEY_BYTES];
    int revoked_count;
    struct links_totals totals;
};

/* link.c */
struct peer *links_peer_by_key(struct links *links, const unsigned char *key);
void links_seed(unsigned char seed[CHANNEL_SEED_BYTES]);

/* link_conn.c */
struct conn *conn_create(struct links *links, int fd, struct peer *dialed, struct sov_errbuf *err);
/* Dialed: TCP is there; called: from the beginning. */
void conn_begin(struct conn *conn);
/* Sends what waits: pings, refusals, messages of the peer's queue. */
void conn_flush(struct conn *conn);
void conn_resume(struct conn *conn);
/* Both nodes dial each other, and it is this one's connection that stays. */
bool conn_crosses(const struct peer *peer);
/* Ends it; why may be NULL when there is nothing to be said. */
void conn_close(struct conn *conn, const char *why);
void links_bury(struct links *links);

/* link_dial.c */
void dial_init(struct peer *peer);
/* After a try or a link ended: again, in a while. */
void dial_later(struct peer *peer);
void dial_now(struct peer *peer);
void dial_stop(struct peer *peer);
/* Why there is no link, for who asks; and for the log, when that has been so for quiet_ms. */
void dial_note(struct peer *peer, const char *why);
/* Names that were looked up. */
void dial_resolved(struct links *links);

/* link_accept.c */
enum sov_error accept_start(struct links *links, struct sov_errbuf *err);
void accept_stop(struct links *links);

#endif
