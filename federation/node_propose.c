/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Own proposals, from any thread into requests of this member, and outcomes back.
 *
 * Those that wait are put together: the first one goes at once, whatever comes while it is on its way
 * makes the next request, so that with many clients a request carries many patterns and latency stays
 * that of one round. Only full requests are sent beyond NODE_OWN_PARTLY_FULL.
 *
 * A proposal whose time is over ends. One that still waits here is taken back for good. A request that was
 * sent cannot be: it goes on, without those of its proposals that nobody waits for.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "base/canonical_json.h"
#include "base/clock.h"
#include "base/mem.h"
#include "federation/node_internal.h"

/* Of an encoded request beside its patterns, and of each pattern beside its text (message.h). */
enum { REQUEST_BYTES = 12 + MESSAGE_SIGNATURE_BYTES, PATTERN_BYTES = 4 };

/* ---- by the caller ---- */

enum sov_error fed_proposal_create(struct fed_proposal **out, struct sov_errbuf *err)
{
    *out = sov_calloc(1, sizeof **out);
    return *out != NULL ? SOV_OK : sov_fail(err, SOV_ERR_NOMEM, "no memory for a proposal");
}

void fed_proposal_free(struct fed_proposal *proposal)
{
    if (proposal == NULL) return;
    strbuf_free(&proposal->text);
    sov_free(proposal->lengths);
    sov_free(proposal->ids);
    sov_free(proposal);
}

static bool grow(struct fed_proposal *p)
{
    if (p->count < p->capacity) return true;
    uint32_t capacity = p->capacity > 0 ? 2 * p->capacity : 1;
    void *lengths = sov_realloc(p->lengths, capacity, sizeof *p->lengths);
    if (lengths != NULL) p->lengths = lengths;
    void *ids = sov_realloc(p->ids, capacity, sizeof *p->ids);
    if (ids != NULL) p->ids = ids;
    if (lengths == NULL || ids == NULL) return false;
    p->capacity = capacity;
    return true;
}

static size_t encoded_bytes(const struct fed_proposal *p)
{
    return p->text.length + (size_t)p->count * PATTERN_BYTES;
}

enum sov_error fed_proposal_add(struct fed_proposal *proposal, const struct message_limits *limits,
                                const char *json, size_t length, struct sov_errbuf *err)
{
    size_t before = proposal->text.length;
    if (proposal->count >= PBFT_REQUEST_PATTERNS_MAX ||
        proposal->count >= limits->batch_patterns_max)
        return sov_fail(err, SOV_ERR_LIMIT, "at most %d patterns can be proposed together",
                        PBFT_REQUEST_PATTERNS_MAX);
    if (!grow(proposal)) return sov_fail(err, SOV_ERR_NOMEM, "no memory for a proposal");
    enum sov_error rc = canonical_json(json, length, 0, &proposal->text, err);
    if (rc != SOV_OK) return rc;
    size_t canonical = proposal->text.length - before;
    if (canonical > limits->pattern_bytes_max)
        rc = sov_fail(err, SOV_ERR_LIMIT,
                      "a pattern of %zu bytes in canonical form; at most %u are taken", canonical,
                      limits->pattern_bytes_max);
    else if (encoded_bytes(proposal) + PATTERN_BYTES + REQUEST_BYTES > limits->request_bytes_max)
        rc = sov_fail(err, SOV_ERR_LIMIT,
                      "patterns of more than %u bytes together; propose them one after the other",
                      limits->request_bytes_max - REQUEST_BYTES);
    if (rc != SOV_OK) {
        proposal->text.length = before;
        return rc;
    }
    proposal->lengths[proposal->count++] = (uint32_t)canonical;
    return SOV_OK;
}

enum sov_error fed_node_propose(struct fed_node *node, struct fed_proposal *proposal,
                                struct sov_errbuf *err)
{
    enum sov_error rc = SOV_OK;
    if (proposal->count == 0 && !proposal->is_change)
        return sov_fail(err, SOV_ERR_INVALID, "a proposal without a pattern");
    proposal->next = NULL;
    proposal->begun_ns = clock_monotonic_ns();
    proposal->due_ns =
        proposal->timeout_ms > 0 ? proposal->begun_ns + proposal->timeout_ms * 1000000 : INT64_MAX;
    proposal->fate = FED_DECIDED;
    proposal->timed_out = false;
    pthread_mutex_lock(&node->lock);
    if (node->closed || atomic_load(&node->failed)) {
        rc = sov_fail(err, SOV_ERR_SHUTDOWN, "the federation's node is stopping");
    } else if (node->submitted >= NODE_PROPOSALS_MAX ||
               node->submitted_bytes + proposal->text.length > NODE_PROPOSALS_BYTES_MAX) {
        rc = sov_fail(err, SOV_ERR_BUSY, "%zu proposals wait already; try again later",
                      node->submitted);
    } else {
        if (node->submitted_last != NULL)
            node->submitted_last->next = proposal;
        else
            node->submitted_first = proposal;
        node->submitted_last = proposal;
        node->submitted++;
        node->submitted_bytes += proposal->text.length;
    }
    pthread_mutex_unlock(&node->lock);
    if (rc == SOV_OK) loop_wake(node->loop);
    return rc;
}

void fed_proposal_explain(const struct fed_proposal *p, char *out, size_t size)
{
    char why[64] = "the node ended";
    if (p->timed_out)
        snprintf(why, sizeof why, "it was not committed within %g s", (double)p->timeout_ms / 1000);
    if (p->fate == FED_NEVER)
        snprintf(out, size, "the proposal was taken back: %s, and no other node has seen it", why);
    else if (p->count == 0)
        snprintf(out, size, "the proposal may be committed, now or later: %s; see the log", why);
    else {
        char id[2 * MESSAGE_DIGEST_BYTES + 1];
        sodium_bin2hex(id, sizeof id, p->ids[0].bytes, sizeof p->ids[0].bytes);
        snprintf(out, size, "the proposal may be committed, now or later: %s; look for its id %s",
                 why, id);
    }
}

/* ---- by the node ---- */

static void append(struct fed_node *node, struct fed_proposal *list)
{
    if (list == NULL) return;
    if (node->waiting_last != NULL)
        node->waiting_last->next = list;
    else
        node->waiting_first = list;
    for (; list != NULL; list = list->next) {
        node->waiting_last = list;
        node->waiting++;
    }
}

static void take_submitted(struct fed_node *node)
{
    pthread_mutex_lock(&node->lock);
    struct fed_proposal *list = node->submitted_first;
    node->submitted_first = node->submitted_last = NULL;
    pthread_mutex_unlock(&node->lock);
    for (const struct fed_proposal *p = list; p != NULL; p = p->next)
        if (p->due_ns < node->due_ns) node->due_ns = p->due_ns;
    append(node, list);
}

static void end_proposal(struct fed_node *node, struct fed_proposal *proposal,
                         enum pbft_outcome outcome, uint64_t sequence)
{
    size_t bytes = proposal->text.length;
    proposal->next = NULL;
    proposal->outcome = outcome;
    proposal->sequence = sequence;
    proposal->latency_ns = clock_monotonic_ns() - proposal->begun_ns;
    if (outcome == PBFT_COMMITTED) {
        int bucket = 0;
        while (bucket < FED_LATENCY_BUCKETS - 1 && proposal->latency_ns > 250000ll << bucket)
            bucket++;
        node->now.latency[bucket]++;
        node->now.latency_count++;
        node->now.latency_ns += proposal->latency_ns;
        node->now.committed++;
    } else {
        node->now.refused++;
    }
    pthread_mutex_lock(&node->lock);
    node->submitted--;
    node->submitted_bytes -= bytes;
    pthread_mutex_unlock(&node->lock);
    proposal->done(proposal);
}

static void end_undecided(struct fed_node *node, struct fed_proposal *proposal, enum fed_fate fate,
                          bool timed_out)
{
    proposal->fate = fate;
    proposal->timed_out = timed_out;
    end_proposal(node, proposal, PBFT_LOST, 0);
}

/* How many of those that wait go into one request, and whether it is full with them. */
static uint32_t choose(const struct fed_node *node, uint32_t *patterns, bool *full)
{
    const struct message_limits *limits = fed_node_limits(node);
    size_t bytes = REQUEST_BYTES;
    uint32_t count = 0;
    uint32_t most = limits->batch_patterns_max < PBFT_REQUEST_PATTERNS_MAX
                        ? limits->batch_patterns_max
                        : PBFT_REQUEST_PATTERNS_MAX;
    *patterns = 0;
    *full = false;
    for (const struct fed_proposal *p = node->waiting_first; p != NULL; p = p->next, count++) {
        /* A change is a request of its own. */
        *full = count > 0 && (p->is_change || node->waiting_first->is_change);
        *full = *full || *patterns + p->count > most ||
                bytes + encoded_bytes(p) > limits->request_bytes_max;
        if (*full) break;
        *patterns += p->count;
        bytes += encoded_bytes(p);
    }
    *full = *full || *patterns == most;
    return count;
}

/* The first `count` of those that wait, taken off the list. */
static struct fed_proposal *detach(struct fed_node *node, uint32_t count)
{
    struct fed_proposal *first = node->waiting_first, *last = first;
    for (uint32_t i = 1; i < count; i++) last = last->next;
    node->waiting_first = last->next;
    if (node->waiting_first == NULL) node->waiting_last = NULL;
    node->waiting -= count;
    last->next = NULL;
    return first;
}

static enum sov_error build(struct fed_node *node, uint64_t number,
                            const struct fed_proposal *first)
{
    struct message_text texts[PBFT_REQUEST_PATTERNS_MAX];
    uint32_t count = 0;
    strbuf_clear(&node->request);
    if (first->is_change)
        return message_change_build(&node->scratches[0], node->seat, number, &first->change,
                                    &node->request, NULL, NULL);
    for (const struct fed_proposal *p = first; p != NULL; p = p->next) {
        const char *at = strbuf_text(&p->text);
        for (uint32_t i = 0; i < p->count; at += p->lengths[i++])
            texts[count++] =
                (struct message_text){.bytes = (const uint8_t *)at, .length = p->lengths[i]};
    }
    return message_request_build(&node->scratches[0], node->seat, number, texts, count,
                                 &node->request, NULL, NULL);
}

/*
 * Builds, decodes (which digests, once) and signs the request. False: no memory, or one that cannot be (a
 * change without sense).
 */
static bool make_request(struct fed_node *node, uint64_t number, struct fed_proposal *first,
                         struct message *out)
{
    struct message wrapped;
    uint8_t signature[MESSAGE_SIGNATURE_BYTES];
    if (build(node, number, first) != SOV_OK) return false;
    message_request_wrap((const uint8_t *)node->request.data, (uint32_t)node->request.length,
                         &wrapped);
    size_t length = message_encoded_bytes(&wrapped);
    strbuf_clear(&node->encoded);
    uint8_t *bytes = (uint8_t *)strbuf_extend(&node->encoded, length);
    if (bytes == NULL || message_encode(&wrapped, bytes, length) != length) return false;
    if (message_decode(bytes, length, &node->scratches[0], out, NULL) != SOV_OK) return false;
    identity_sign_digest(node->identity, out->digest.bytes, signature);
    message_request_sign(bytes, length, signature);
    uint32_t k = 0;
    for (struct fed_proposal *p = first; p != NULL && !p->is_change; p = p->next)
        for (uint32_t i = 0; i < p->count; i++) p->ids[i] = out->batch.patterns[k++];
    return true;
}

/* True: a request went to the core. */
static bool submit(struct fed_node *node)
{
    uint32_t patterns;
    bool full;
    uint32_t count = choose(node, &patterns, &full);
    if (count == 0 || node->own_pause ||
        node->under_way >= (full ? NODE_OWN_UNDER_WAY : NODE_OWN_PARTLY_FULL))
        return false;
    uint64_t number = pbft_number_next(node->core);
    struct node_request *request = &node->requests[number % PBFT_NUMBERS_WINDOW];
    if (number == 0 || request->number != 0) {
        node->own_pause = true;
        return false;
    }
    struct fed_proposal *first = detach(node, count);
    struct pbft_event event = {.kind = PBFT_EVENT_REQUEST};
    struct message message;
    if (!make_request(node, number, first, &message)) {
        for (struct fed_proposal *p = first, *next; p != NULL; p = next) {
            next = p->next;
            end_proposal(node, p, PBFT_MALFORMED, 0);
        }
        return true;
    }
    *request = (struct node_request){.number = number, .first = first};
    node->under_way++;
    node->now.proposals += count;
    known_add(&node->known, &message);
    event.message = &message;
    node_step(node, &event);
    return true;
}

bool node_take_proposals(struct fed_node *node)
{
    bool worked = false;
    take_submitted(node);
    while (node->waiting_first != NULL && node_ready(node) && submit(node)) worked = true;
    return worked;
}

/* Back to the front of those that wait. */
static void again(struct fed_node *node, struct fed_proposal *list)
{
    struct fed_proposal *rest = node->waiting_first;
    node->waiting_first = node->waiting_last = NULL;
    size_t waiting = node->waiting;
    append(node, list);
    append(node, rest);
    assert(node->waiting >= waiting);
    /* The rest was counted already. */
    node->waiting -= waiting;
}

void node_reply(struct fed_node *node, uint64_t number, enum pbft_outcome outcome,
                uint64_t sequence)
{
    struct node_request *request = &node->requests[number % PBFT_NUMBERS_WINDOW];
    if (number == 0 || request->number != number) return; /* of a time before the start */
    struct fed_proposal *first = request->first;
    *request = (struct node_request){.number = 0};
    node->under_way--;
    if (outcome == PBFT_BUSY) node->own_pause = true;
    if (outcome == PBFT_BUSY || outcome == PBFT_LOST) {
        again(node, first);
        return;
    }
    for (struct fed_proposal *p = first, *next; p != NULL; p = next) {
        next = p->next;
        end_proposal(node, p, outcome, sequence);
    }
}

void node_proposals_end(struct fed_node *node)
{
    pthread_mutex_lock(&node->lock);
    node->closed = true;
    pthread_mutex_unlock(&node->lock);
    take_submitted(node);
    while (node->waiting_first != NULL) end_undecided(node, detach(node, 1), FED_NEVER, false);
    for (int i = 0; i < PBFT_NUMBERS_WINDOW; i++) {
        struct fed_proposal *list = node->requests[i].first;
        node->requests[i] = (struct node_request){.number = 0};
        for (struct fed_proposal *p = list, *next; p != NULL; p = next) {
            next = p->next;
            end_undecided(node, p, FED_UNDECIDED, false);
        }
    }
}

/* Takes those whose time is over off the list, and ends them; *due_ns becomes that of the first of the rest. */
static void expire(struct fed_node *node, struct fed_proposal **list, enum fed_fate fate,
                   int64_t now_ns, int64_t *due_ns)
{
    while (*list != NULL) {
        struct fed_proposal *p = *list;
        if (p->due_ns <= now_ns) {
            *list = p->next;
            if (fate == FED_NEVER) node->waiting--;
            end_undecided(node, p, fate, true);
        } else {
            if (p->due_ns < *due_ns) *due_ns = p->due_ns;
            list = &p->next;
        }
    }
}

void node_expire_proposals(struct fed_node *node)
{
    int64_t now = clock_monotonic_ns(), due = INT64_MAX;
    take_submitted(node);
    if (now < node->due_ns) return;
    expire(node, &node->waiting_first, FED_NEVER, now, &due);
    node->waiting_last = node->waiting_first;
    while (node->waiting_last != NULL && node->waiting_last->next != NULL)
        node->waiting_last = node->waiting_last->next;
    for (int i = 0; i < PBFT_NUMBERS_WINDOW; i++)
        expire(node, &node->requests[i].first, FED_UNDECIDED, now, &due);
    node->due_ns = due;
}
