/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of peers, from the link to the core. What is cheap comes first: quota, format and limits,
 * who may say such a thing; then the signatures of some messages together, and whether patterns are
 * canonical; then the core.
 *
 * A message that no correct member sends over its link (malformed, a signature that is not genuine: a
 * correct member does not pass on what it has not verified) silences the link for a while: it is not
 * read, so what the peer does with its time costs this node nothing. Messages that cannot be verified
 * because this node does not know the configuration they are of are only dropped: it may be the one
 * that is behind.
 */
#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "federation/node_internal.h"

/* ---- quotas and penalties ---- */

static void append(struct node_message **first, struct node_message **last,
                   struct node_message *message)
{
    if (*last != NULL)
        (*last)->next = message;
    else
        *first = message;
    *last = message;
}

bool node_receive(void *user, int from, unsigned char *bytes, size_t length)
{
    struct fed_node *node = user;
    struct node_peer *peer = &node->peers[from];
    if (peer->taken >= NODE_QUOTA_MESSAGES || peer->taken_bytes >= NODE_QUOTA_BYTES ||
        penalty_runs(&peer->penalty, loop_now_ns(node->loop)) || node->unput) {
        peer->held = true;
        node->now.held++;
        return false;
    }
    struct node_message *message = sov_alloc(sizeof *message + length, 1);
    if (message == NULL) return true; /* lost: the peer repeats what matters */
    *message = (struct node_message){.from = (uint8_t)from, .length = length};
    memcpy(message->bytes, bytes, length);
    append(&node->first, &node->last, message);
    peer->taken++;
    peer->taken_bytes += length;
    node->now.messages_in++;
    return true;
}

/* What was put off comes first in the next turn, and counts for it. */
static void take_up_later(struct fed_node *node)
{
    for (const struct node_message *m = node->later_first; m != NULL; m = m->next) {
        node->peers[m->from].taken++;
        node->peers[m->from].taken_bytes += m->length;
    }
    if (node->later_first == NULL) return;
    node->later_last->next = node->first;
    if (node->first == NULL) node->last = node->later_last;
    node->first = node->later_first;
    node->later_first = node->later_last = NULL;
}

static void count_checks(struct fed_node *node)
{
    struct checker_stats stats;
    checker_stats_read(node->checker, &stats);
    const uint64_t count = stats.verified - node->checks_before;
    if (count > node->now.signatures_turn) node->now.signatures_turn = count;
    node->checks_before = stats.verified;
}

/* A new turn: quotas are new, and who was held is read on. */
void node_inbox_turn_end(struct fed_node *node)
{
    int64_t now = clock_monotonic_ns(), next = INT64_MAX;
    count_checks(node);
    if (node->unput) return;
    for (int i = 0; i < MESSAGE_SEATS_MAX; i++) {
        struct node_peer *peer = &node->peers[i];
        peer->taken = peer->checks = 0;
        peer->taken_bytes = 0;
    }
    take_up_later(node);
    for (int i = 0; i < MESSAGE_SEATS_MAX; i++) {
        struct node_peer *peer = &node->peers[i];
        if (!peer->held) continue;
        if (penalty_runs(&peer->penalty, now)) {
            if (peer->penalty.until_ns < next) next = peer->penalty.until_ns;
            continue;
        }
        peer->held = false;
        links_resume(node->links, i);
    }
    if (next != INT64_MAX) loop_timer_set(node->loop, &node->resume_timer, next);
}

static void punish(struct fed_node *node, uint8_t from, const char *why)
{
    struct node_peer *peer = &node->peers[from];
    peer->bad++;
    node->now.messages_bad++;
    if (penalty_add(&peer->penalty, clock_monotonic_ns()))
        log_warn("federation: a bad message of member %u: %s", from, why);
}

/* ---- the configuration ---- */

static void remember_revoked(struct fed_node *node, const uint8_t *key)
{
    for (int i = 0; i < node->revoked_count; i++)
        if (memcmp(node->revoked[i], key, MESSAGE_KEY_BYTES) == 0) return;
    if (node->revoked_count == LINK_REVOKED_MAX) return; /* then it is merely unknown */
    void *more = sov_realloc(node->revoked, (size_t)node->revoked_count + 1, MESSAGE_KEY_BYTES);
    if (more == NULL) return;
    node->revoked = more;
    memcpy(node->revoked[node->revoked_count++], key, MESSAGE_KEY_BYTES);
}

static bool is_member_key(const struct node_epoch *epoch, const uint8_t *key)
{
    for (int i = 0; i < MESSAGE_SEATS_MAX; i++)
        if (epoch->active[i] && memcmp(epoch->keys[i], key, MESSAGE_KEY_BYTES) == 0) return true;
    return false;
}

static void configure_links(struct fed_node *node, const struct message_member *members,
                            uint32_t count)
{
    struct link_peer peers[MESSAGE_SEATS_MAX];
    int n = 0;
    struct sov_errbuf err = {""};
    for (uint32_t i = 0; i < count; i++) {
        const struct message_member *m = &members[i];
        uint16_t port = 0;
        if (!m->active || m->seat == node->seat) continue;
        peers[n] = (struct link_peer){.id = m->seat};
        memcpy(peers[n].key, m->key, sizeof peers[n].key);
        if (fed_address_split(m->address, m->address_length, peers[n].host, &port, &err) !=
            SOV_OK) {
            log_warn("federation: member %u is not dialed: %s", m->seat, err.message);
            peers[n].host[0] = '\0';
        }
        peers[n++].port = port;
    }
    if (links_configure(node->links, peers, n, (const void *)node->revoked, node->revoked_count,
                        &err) != SOV_OK)
        node_fail(node, SOV_ERR_NOMEM, err.message);
}

void node_epoch_set(struct fed_node *node, uint32_t number, const struct message_member *members,
                    uint32_t count)
{
    struct node_epoch next = {.known = true, .epoch = number};
    for (uint32_t i = 0; i < count; i++) {
        next.active[members[i].seat] = members[i].active;
        memcpy(next.keys[members[i].seat], members[i].key, MESSAGE_KEY_BYTES);
    }
    for (int e = 0; e < NODE_EPOCHS; e++)
        for (int i = 0; node->epochs[e].known && i < MESSAGE_SEATS_MAX; i++)
            if (node->epochs[e].active[i] && !is_member_key(&next, node->epochs[e].keys[i]))
                remember_revoked(node, node->epochs[e].keys[i]);
    /* A request that was genuine under the old keys may not be under the new ones. */
    if (number != node->epoch) known_free(&node->known);
    node->epochs[number % NODE_EPOCHS] = next;
    node->epoch = number;
    configure_links(node, members, count);
}

static const struct node_epoch *epoch_of(const struct fed_node *node, uint32_t number)
{
    if (number == MESSAGE_EPOCH_CURRENT) number = node->epoch;
    const struct node_epoch *epoch = &node->epochs[number % NODE_EPOCHS];
    return epoch->known && epoch->epoch == number ? epoch : NULL;
}

/* ---- verification ---- */

enum judgement { GOOD, UNWANTED, UNVERIFIABLE, BAD, NO_MEMORY };

struct decoded {
    struct node_message *message;
    struct message m;
    enum judgement judgement;
    uint32_t epoch;
    const char *why;
};

/* Those that are only ever written down are not for sending. */
static bool is_sendable(enum message_kind kind)
{
    return kind >= MESSAGE_REQUEST && kind <= MESSAGE_FETCH_VIEW_CHANGE;
}

/* Others are believed of the link's peer. */
static bool is_signed(const struct message *m)
{
    switch (m->kind) {
    case MESSAGE_STATUS:
    case MESSAGE_FETCH_LOG:
    case MESSAGE_FETCH_BATCH:
    case MESSAGE_BATCH:
    case MESSAGE_FETCH_VIEW_CHANGE: return false;
    default: return true;
    }
}

static enum judgement add_checks(struct fed_node *node, const struct message *m, uint32_t owner)
{
    struct message_signed_cursor cursor;
    struct message_signed s;
    message_signed_begin(&cursor, m, &node->config.federation);
    while (message_signed_next(&cursor, &s)) {
        const struct node_epoch *epoch = epoch_of(node, s.epoch);
        if (epoch == NULL) return UNVERIFIABLE;
        if (s.known) continue;
        /* Whoever is no member of that epoch has no key in it. */
        if (s.seat >= MESSAGE_SEATS_MAX || !epoch->active[s.seat])
            return s.request ? UNVERIFIABLE : BAD;
        if (!checker_add(node->checker, owner, epoch->keys[s.seat], &s.digest, s.signature))
            return NO_MEMORY;
    }
    return GOOD;
}

static void decode(struct fed_node *node, struct decoded *d, struct message_scratch *scratch,
                   uint32_t owner)
{
    static const char *const REASONS[] = {[GOOD] = "",
                                          [UNWANTED] = "",
                                          [UNVERIFIABLE] = "",
                                          [BAD] = "signed by no member",
                                          [NO_MEMORY] = ""};
    struct sov_errbuf err = {""};
    int64_t begin = clock_monotonic_ns();
    enum sov_error rc = message_decode(d->message->bytes, d->message->length, scratch, &d->m, &err);
    node_phase(node, FED_PHASE_DECODE, begin, clock_monotonic_ns());
    d->judgement = rc == SOV_OK ? GOOD : BAD;
    d->why = "malformed";
    if (rc == SOV_ERR_UNSUPPORTED) d->judgement = UNVERIFIABLE; /* of a newer version */
    if (rc != SOV_OK) return;
    if (!is_sendable(d->m.kind)) {
        d->judgement = BAD;
        d->why = "not its to send";
        return;
    }
    if (!pbft_wants(node->core, &d->m)) {
        d->judgement = UNWANTED;
        node->now.messages_unwanted++;
        return;
    }
    d->epoch =
        d->m.kind == MESSAGE_REQUEST || !is_signed(&d->m) ? node->epoch : message_epoch(d->m.view);
    const size_t before = checker_count(node->checker);
    d->judgement = add_checks(node, &d->m, owner);
    node->peers[d->message->from].checks += (uint32_t)(checker_count(node->checker) - before);
    d->why = REASONS[d->judgement];
    if (d->judgement != GOOD) return;
    if (d->m.kind != MESSAGE_REQUEST && d->m.kind != MESSAGE_PRE_PREPARE) return;
    begin = clock_monotonic_ns();
    rc = message_check_canonical(&d->m, scratch, &node->work, &err);
    node_phase(node, FED_PHASE_VERIFY, begin, clock_monotonic_ns());
    if (rc == SOV_OK) return;
    d->judgement = rc == SOV_ERR_NOMEM ? NO_MEMORY : BAD;
    d->why = "a pattern is not canonical";
}

static void give(struct fed_node *node, const struct decoded *d)
{
    struct pbft_event event = {
        .kind = PBFT_EVENT_MESSAGE, .from = d->message->from, .epoch = d->epoch, .message = &d->m};
    /* Not what was verified with the keys of an epoch that has ended since. */
    if ((d->m.kind == MESSAGE_REQUEST || d->m.kind == MESSAGE_PRE_PREPARE) &&
        d->epoch == node->epoch)
        known_add(&node->known, &d->m);
    node_step(node, &event);
}

static struct node_message *take_first(struct fed_node *node)
{
    struct node_message *message = node->first;
    node->first = message->next;
    if (node->first == NULL) node->last = NULL;
    message->next = NULL;
    return message;
}

static enum message_kind kind_of(const struct node_message *m)
{
    enum { AT_KIND = 1 };
    return m->length > AT_KIND ? (enum message_kind)m->bytes[AT_KIND] : 0;
}

static bool has_had_its_time(const struct fed_node *node, uint8_t from)
{
    return node->peers[from].checks >= NODE_QUOTA_CHECKS;
}

/*
 * As many messages as are verified together: one by one when there are few, so that the first does not
 * wait for the last; else so many that it pays to ask other threads. What brings requests ends a
 * group: they are known then, should the next message have them, too. What may have many signatures stands alone:
 * whether it is wanted, and whether its sender still has time, is known when all before it is done.
 */
static int group_size(const struct fed_node *node)
{
    int count = 0;
    for (const struct node_message *m = node->first; m != NULL && count < NODE_GROUP; m = m->next) {
        const enum message_kind kind = kind_of(m);
        const bool alone = kind == MESSAGE_PRE_PREPARE || kind == MESSAGE_VIEW_CHANGE;
        if (count > 0 && (alone || has_had_its_time(node, m->from))) break;
        count++;
        if (alone || kind == MESSAGE_REQUEST) break;
    }
    return count > CHECK_ALONE_MAX ? count : 1;
}

/* What a peer sent before it was silenced goes unread, too; and who has had its time waits for the next turn. */
static void pass_over(struct fed_node *node)
{
    int64_t now = loop_now_ns(node->loop);
    while (node->first != NULL) {
        const uint8_t from = node->first->from;
        if (penalty_runs(&node->peers[from].penalty, now))
            sov_free(take_first(node));
        else if (has_had_its_time(node, from))
            append(&node->later_first, &node->later_last, take_first(node));
        else
            return;
    }
}

static void take_group(struct fed_node *node, int count)
{
    struct decoded group[NODE_GROUP];
    bool good[NODE_GROUP];
    assert(count <= NODE_GROUP);
    checker_begin(node->checker);
    for (int i = 0; i < count; i++) {
        group[i] = (struct decoded){.message = take_first(node)};
        good[i] = true;
        decode(node, &group[i], &node->scratches[i], (uint32_t)i);
    }
    int64_t begin = clock_monotonic_ns();
    checker_run(node->checker, good);
    node_phase(node, FED_PHASE_VERIFY, begin, clock_monotonic_ns());
    for (int i = 0; i < count; i++) {
        if (group[i].judgement == GOOD && !good[i]) {
            group[i].judgement = BAD;
            group[i].why = "a signature that is not genuine";
        }
        if (group[i].judgement == BAD) punish(node, group[i].message->from, group[i].why);
        /* While the store has no room, the core hears nothing; peers repeat what matters. */
        if (group[i].judgement == GOOD && node_ready(node)) give(node, &group[i]);
        sov_free(group[i].message);
    }
}

bool node_take_inbox(struct fed_node *node)
{
    bool worked = node->first != NULL;
    for (pass_over(node); node->first != NULL && node_ready(node); pass_over(node))
        take_group(node, group_size(node));
    return worked;
}

void node_inbox_free(struct fed_node *node)
{
    take_up_later(node);
    while (node->first != NULL) sov_free(take_first(node));
    sov_free(node->revoked);
    strbuf_free(&node->work);
    strbuf_free(&node->request);
    strbuf_free(&node->encoded);
}
