/* SPDX-License-Identifier: Apache-2.0 */
#include "server/computation.h"

#include <assert.h>

#include "base/mem.h"

/* Entries looked at for their age when an answer is cached, so that what is too old leaves. */
enum { COMPUTATION_EXPIRE_ENTRIES = 16 };

struct computation {
    struct computations *all;
    struct computation_source source; /* it is NULL: it has ended */
    struct cache_flight *flight;      /* as above */
    struct producer_stats stats;      /* at the end */
    atomic_int holders; /* who started it, and itself while it runs or is on the list */

    /* The list's lock. */
    struct computation *next;
    bool started; /* may be driven */
    bool news;    /* came before that */
    bool listed;
    bool cancelled;
};

bool computations_init(struct computations *all)
{
    *all = (struct computations){0};
    atomic_init(&all->ready, false);
    return pthread_mutex_init(&all->lock, NULL) == 0;
}

void computations_free(struct computations *all)
{
    assert(all->first == NULL);
    pthread_mutex_destroy(&all->lock);
}

/* ---- the list ---- */

/* With the list's lock. */
static void list_append(struct computation *c)
{
    struct computations *all = c->all;
    c->listed = true;
    c->next = NULL;
    if (all->last != NULL)
        all->last->next = c;
    else
        all->first = c;
    all->last = c;
    atomic_store(&all->ready, true);
}

static struct computation *list_take(struct computations *all, bool *cancelled)
{
    pthread_mutex_lock(&all->lock);
    struct computation *c = all->first;
    if (c != NULL) {
        all->first = c->next;
        if (all->first == NULL) {
            all->last = NULL;
            atomic_store(&all->ready, false);
        }
        c->listed = false;
        *cancelled = c->cancelled;
    }
    pthread_mutex_unlock(&all->lock);
    return c;
}

static void computation_announce(struct computation *c, bool cancelled)
{
    pthread_mutex_lock(&c->all->lock);
    c->cancelled |= cancelled;
    if (!c->started)
        c->news = true;
    else if (!c->listed)
        list_append(c);
    pthread_mutex_unlock(&c->all->lock);
}

/* Engine's thread. */
static void computation_on_notify(void *user, bool last)
{
    struct computation *c = user;
    computation_announce(c, false);
    cache_flight_nudge(c->flight, last);
}

/* The thread that closed the last reader. */
static void computation_on_cancel(void *user)
{
    computation_announce(user, true);
}

/* ---- driving ---- */

void computation_release(struct computation *c)
{
    if (c == NULL || atomic_fetch_sub(&c->holders, 1) != 1) return;
    sov_free(c);
}

/* The jobs go first: after that nobody nudges the flight. */
static struct cache_flight *computation_end(struct computation *c)
{
    struct cache_flight *flight = c->flight;
    c->source.read_stats(c->source.it, &c->stats);
    c->source.free(c->source.it);
    c->source.it = NULL;
    return flight;
}

static void computation_fail(struct computation *c, enum sov_error error, const char *message)
{
    struct cache_flight *flight = computation_end(c);
    cache_abandon(flight, error, message);
    c->flight = NULL;
}

static void computation_finish(struct computation *c)
{
    struct sov_errbuf why;
    struct cache_now now = cache_now_read();
    struct strbuf kept = {0};
    if (c->source.put_kept != NULL) c->source.put_kept(c->source.it, &kept);
    struct cache_flight *flight = computation_end(c);
    /* An answer that is too large to be cached, or found no memory, has been read all the same. */
    (void)cache_commit(flight, kept.data, kept.length, !strbuf_failed(&kept), now, &why);
    strbuf_free(&kept);
    c->flight = NULL;
    cache_expire(c->all->cache, COMPUTATION_EXPIRE_ENTRIES, now);
}

static void computation_drive(struct computation *c, bool cancelled)
{
    enum sov_error error;
    struct sov_errbuf err;
    struct strbuf records = {0};
    if (cancelled) {
        computation_fail(c, SOV_ERR_CANCELLED, "Nobody waits for this answer any more.");
        return;
    }
    enum producer_state state = c->source.pump(c->source.it, &records, &error, &err);
    /* What came before a failure is shown; but half a record is none. */
    if (records.length > 0 && !strbuf_failed(&records)) {
        struct sov_errbuf why;
        enum sov_error rc = cache_flight_append(c->flight, records.data, records.length, &why);
        if (rc != SOV_OK && state != PRODUCER_FAILED) {
            state = PRODUCER_FAILED;
            error = rc;
            err = why;
        }
    }
    strbuf_free(&records);
    if (state == PRODUCER_DONE)
        computation_finish(c);
    else if (state == PRODUCER_FAILED)
        computation_fail(c, error, err.message);
}

void computations_drive(struct computations *all)
{
    bool cancelled;
    struct computation *c;
    while (computations_ready(all) && (c = list_take(all, &cancelled)) != NULL) {
        if (c->source.it != NULL) computation_drive(c, cancelled);
        if (c->source.it != NULL) continue;
        /* News may have put it back on the list before its jobs were released: then later. */
        pthread_mutex_lock(&all->lock);
        bool listed = c->listed;
        pthread_mutex_unlock(&all->lock);
        if (!listed) computation_release(c);
    }
}

/* ---- starting ---- */

static enum sov_error computation_put_head(struct computation *c, struct sov_errbuf *err)
{
    struct strbuf head = {0};
    enum sov_error rc = SOV_OK;
    c->source.put_head(c->source.it, &head);
    if (strbuf_failed(&head))
        rc = sov_fail(err, SOV_ERR_NOMEM, "Out of memory for the answer.");
    else
        rc = cache_flight_append(c->flight, head.data, head.length, err);
    strbuf_free(&head);
    return rc;
}

static enum sov_error computation_submit(struct computation *c, struct sov_errbuf *err)
{
    struct producer_listener listener = {.notify = computation_on_notify, .user = c};
    cache_flight_on_cancel(c->flight, computation_on_cancel, c);
    enum sov_error rc = c->source.submit(c->source.it, &listener, err);
    /* The head says that the request was accepted: whoever reads it begins to answer. */
    return rc == SOV_OK ? computation_put_head(c, err) : rc;
}

enum sov_error computation_start_source(struct computations *all,
                                        const struct computation_source *source,
                                        struct cache_flight *flight, struct computation **out,
                                        struct sov_errbuf *err)
{
    *out = NULL;
    struct computation *c = sov_calloc(1, sizeof *c);
    enum sov_error rc = SOV_OK;
    if (c == NULL) {
        rc = sov_fail(err, SOV_ERR_NOMEM, "Out of memory while preparing the request.");
    } else {
        c->all = all;
        c->flight = flight;
        c->source = *source;
        atomic_init(&c->holders, 2);
        rc = computation_submit(c, err);
    }
    if (rc != SOV_OK) {
        source->free(source->it);
        cache_abandon(flight, rc, err->message);
        sov_free(c);
        return rc;
    }
    pthread_mutex_lock(&all->lock);
    c->started = true;
    if (c->news) list_append(c);
    pthread_mutex_unlock(&all->lock);
    *out = c;
    return SOV_OK;
}

/* ---- completions ---- */

static enum sov_error completion_submit(void *it, const struct producer_listener *listener,
                                        struct sov_errbuf *err)
{
    return producer_submit(it, listener, err);
}

static void completion_put_head(const void *it, struct strbuf *records)
{
    producer_put_head(it, records);
}

static enum producer_state completion_pump(void *it, struct strbuf *records, enum sov_error *error,
                                           struct sov_errbuf *err)
{
    return producer_pump(it, records, error, err);
}

static void completion_read_stats(const void *it, struct producer_stats *out)
{
    producer_stats_read(it, out);
}

static void completion_free(void *it)
{
    producer_free(it);
}

enum sov_error computation_start(struct computations *all, const struct server_model *model,
                                 struct api_request *request, struct cache_flight *flight,
                                 struct computation **out, struct sov_errbuf *err)
{
    struct computation_source source = {
        .submit = completion_submit,
        .put_head = completion_put_head,
        .pump = completion_pump,
        .read_stats = completion_read_stats,
        .free = completion_free,
    };
    struct producer *producer = NULL;
    enum sov_error rc = producer_create(model, request, &producer, err);
    *out = NULL;
    if (rc != SOV_OK) {
        cache_abandon(flight, rc, err->message);
        return rc;
    }
    source.it = producer;
    return computation_start_source(all, &source, flight, out, err);
}

void computation_stats(const struct computation *c, struct producer_stats *out)
{
    if (c->source.it != NULL)
        c->source.read_stats(c->source.it, out);
    else
        *out = c->stats;
}
