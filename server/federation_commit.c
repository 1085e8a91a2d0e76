/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/federation/propose: {"pattern": any JSON} or {"patterns": [...]}. The proposal goes on when its
 * client leaves: it cannot be called back. So what waits for it is shared by the request and the node,
 * and freed by whichever is done last.
 */
#include <pthread.h>
#include <sodium.h>
#include <string.h>

#include "base/mem.h"
#include "federation/node.h"
#include "server/api_fields.h"
#include "server/federation.h"

struct federation_commit {
    pthread_mutex_t lock;
    void (*notify)(void *user); /* NULL: the request has gone */
    void *user;
    bool done; /* the node is */
    struct fed_proposal *proposal;
};

static void commit_destroy(struct federation_commit *c)
{
    fed_proposal_free(c->proposal);
    pthread_mutex_destroy(&c->lock);
    sov_free(c);
}

static void on_done(struct fed_proposal *proposal)
{
    struct federation_commit *c = proposal->user;
    pthread_mutex_lock(&c->lock);
    c->done = true;
    bool last = c->notify == NULL;
    if (!last) c->notify(c->user); /* with the lock: the request cannot go meanwhile */
    pthread_mutex_unlock(&c->lock);
    if (last) commit_destroy(c);
}

static bool add_pattern(struct fed_node *node, struct fed_proposal *proposal, const json_t *value,
                        struct api_error *err)
{
    struct sov_errbuf why = {""};
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (text == NULL)
        return api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory for the pattern.");
    enum sov_error rc = fed_proposal_add(proposal, fed_node_limits(node), text, strlen(text), &why);
    free(text);
    if (rc == SOV_OK) return true;
    if (rc == SOV_ERR_LIMIT)
        return api_fail_status(err, 413, "pattern_too_large", NULL, "%s.", why.message);
    return rc == SOV_ERR_NOMEM ? api_fail_from(err, rc, NULL, why.message)
                               : api_fail(err, "pattern", "%s", why.message);
}

static bool add_patterns(struct fed_node *node, struct fed_proposal *proposal, const json_t *body,
                         struct api_error *err)
{
    static const char *const FIELDS[] = {"pattern", "patterns"};
    struct sov_errbuf why = {""};
    const json_t *one = json_object_get(body, "pattern"), *many = json_object_get(body, "patterns");
    if (json_only_fields(body, "", FIELDS, 2, &why) != SOV_OK)
        return api_fail(err, NULL, "%s", why.message);
    if ((one == NULL) == (many == NULL))
        return api_fail(err, "pattern", "Either 'pattern' or 'patterns' is needed.");
    if (one != NULL) return add_pattern(node, proposal, one, err);
    if (!json_is_array(many) || json_array_size(many) == 0)
        return api_fail(err, "patterns", "'patterns' must be an array with at least one pattern.");
    for (size_t i = 0; i < json_array_size(many); i++)
        if (!add_pattern(node, proposal, json_array_get(many, i), err)) return false;
    return true;
}

static bool fill(struct federation_commit *c, struct fed_node *node, const char *body,
                 size_t length, struct api_error *err)
{
    struct sov_errbuf why = {""};
    if (fed_proposal_create(&c->proposal, &why) != SOV_OK)
        return api_fail_from(err, SOV_ERR_NOMEM, NULL, why.message);
    json_t *object = api_json_parse(body, length, err);
    if (object == NULL) return false;
    bool ok = add_patterns(node, c->proposal, object, err);
    json_decref(object);
    if (!ok) return false;
    c->proposal->done = on_done;
    c->proposal->user = c;
    enum sov_error rc = fed_node_propose(node, c->proposal, &why);
    return rc == SOV_OK || api_fail_from(err, rc, NULL, why.message);
}

bool federation_commit_begin(struct fed_node *node, const char *body, size_t length,
                             void (*notify)(void *user), void *user, struct federation_commit **out,
                             struct api_error *err)
{
    *out = NULL;
    struct federation_commit *c = sov_calloc(1, sizeof *c);
    if (c == NULL) return api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory.");
    if (pthread_mutex_init(&c->lock, NULL) != 0) {
        sov_free(c);
        return api_fail_from(err, SOV_ERR_NOMEM, NULL, "Out of memory.");
    }
    c->notify = notify;
    c->user = user;
    if (!fill(c, node, body, length, err)) {
        commit_destroy(c);
        return false;
    }
    *out = c;
    return true;
}

void federation_commit_free(struct federation_commit *c)
{
    if (c == NULL) return;
    pthread_mutex_lock(&c->lock);
    c->notify = NULL;
    bool last = c->done;
    pthread_mutex_unlock(&c->lock);
    if (last) commit_destroy(c);
}

enum federation_commit_state federation_commit_look(struct federation_commit *c, struct strbuf *out,
                                                    struct api_error *err)
{
    pthread_mutex_lock(&c->lock);
    bool done = c->done;
    pthread_mutex_unlock(&c->lock);
    if (!done) return COMMIT_WAITING;
    const struct fed_proposal *p = c->proposal;
    if (p->outcome == PBFT_LOST) {
        api_fail_status(err, 503, "shutting_down", NULL,
                        "The node is stopping; whether the proposal was committed is in the log.");
        return COMMIT_FAILED;
    }
    if (p->outcome != PBFT_COMMITTED) {
        api_fail(err, NULL, "The proposal was not committed: %s.", pbft_outcome_name(p->outcome));
        return COMMIT_FAILED;
    }
    strbuf_printf(out, "{\"object\":\"federation.commit\",\"sequence\":%llu,\"ids\":[",
                  (unsigned long long)p->sequence);
    for (uint32_t i = 0; i < p->count; i++) {
        char hex[2 * MESSAGE_DIGEST_BYTES + 1];
        sodium_bin2hex(hex, sizeof hex, p->ids[i].bytes, sizeof p->ids[i].bytes);
        strbuf_printf(out, "%s\"%s\"", i > 0 ? "," : "", hex);
    }
    strbuf_printf(out, "],\"ms\":%.3f}", (double)p->latency_ns / 1e6);
    return COMMIT_DONE;
}
