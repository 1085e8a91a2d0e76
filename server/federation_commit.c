/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/federation/propose: {"pattern": any JSON} or {"patterns": [...]}, and how long to wait,
 * "timeout_ms". The proposal goes on when its client leaves: it cannot be called back. So what waits for it is shared by the request and the node,
 * and freed by whichever is done last.
 */
#include <ctype.h>
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
    static const char *const FIELDS[] = {"pattern", "patterns", "timeout_ms"};
    struct sov_errbuf why = {""};
    const json_t *one = json_object_get(body, "pattern"), *many = json_object_get(body, "patterns");
    if (json_only_fields(body, "", FIELDS, 3, &why) != SOV_OK)
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

static bool set_timeout(struct fed_proposal *proposal, const json_t *value, struct api_error *err)
{
    json_int_t ms = value != NULL ? json_integer_value(value) : FED_TIMEOUT_MS_DEFAULT;
    if ((value != NULL && !json_is_integer(value)) || ms < 1 || ms > FED_TIMEOUT_MS_MAX)
        return api_fail(err, "timeout_ms", "'timeout_ms' must be a whole number from 1 to %d.",
                        FED_TIMEOUT_MS_MAX);
    proposal->timeout_ms = ms;
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
    bool ok = add_patterns(node, c->proposal, object, err) &&
              set_timeout(c->proposal, json_object_get(object, "timeout_ms"), err);
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

static void fail_undecided(const struct fed_proposal *p, struct api_error *err)
{
    char why[256];
    fed_proposal_explain(p, why, sizeof why);
    why[0] = (char)toupper((unsigned char)why[0]);
    if (!p->timed_out)
        api_fail_status(err, 503, "shutting_down", NULL, "%s.", why);
    else if (p->fate == FED_NEVER)
        api_fail_status(err, 503, "proposal_taken_back", NULL, "%s.", why);
    else
        api_fail_status(err, 504, "proposal_undecided", NULL, "%s.", why);
}

enum federation_commit_state federation_commit_look(struct federation_commit *c, struct strbuf *out,
                                                    struct api_error *err)
{
    pthread_mutex_lock(&c->lock);
    bool done = c->done;
    pthread_mutex_unlock(&c->lock);
    if (!done) return COMMIT_WAITING;
    const struct fed_proposal *p = c->proposal;
    if (p->fate != FED_DECIDED) {
        fail_undecided(p, err);
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
