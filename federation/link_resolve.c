/* SPDX-License-Identifier: Apache-2.0 */
#include "federation/link_resolve.h"

#include <netdb.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { HOST_BYTES_MAX = 256 };

enum slot_state { SLOT_FREE, SLOT_ASKED, SLOT_WORKED_ON, SLOT_ANSWERED };

struct slot {
    enum slot_state state;
    uint64_t question; /* its number, so that a late answer to a forgotten one is known */
    char host[HOST_BYTES_MAX];
    int port;
    struct resolved answer;
};

/* Shared by the loop and the thread, freed by whichever ends last. */
struct resolver {
    pthread_mutex_t lock;
    pthread_cond_t asked;
    struct loop *loop; /* NULL: nobody wants to know any more */
    uint64_t questions;
    struct slot slots[RESOLVE_SLOTS];
};

static void ask_system(const char *host, int port, int flags, struct resolved *out)
{
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    struct addrinfo *list = NULL;
    out->count = 0;
    if (getaddrinfo(host, service, &hints, &list) != 0) return;
    for (const struct addrinfo *i = list; i != NULL && out->count < RESOLVE_ADDRESSES_MAX;
         i = i->ai_next) {
        memcpy(&out->addresses[out->count], i->ai_addr, i->ai_addrlen);
        out->lengths[out->count++] = i->ai_addrlen;
    }
    freeaddrinfo(list);
}

bool resolve_numeric(const char *host, int port, struct resolved *out)
{
    *out = (struct resolved){.count = 0};
    ask_system(host, port, AI_NUMERICHOST, out);
    return out->count > 0;
}

static struct slot *next_asked(struct resolver *r)
{
    struct slot *next = NULL;
    for (int i = 0; i < RESOLVE_SLOTS; i++)
        if (r->slots[i].state == SLOT_ASKED &&
            (next == NULL || r->slots[i].question < next->question))
            next = &r->slots[i];
    return next;
}

static void resolver_destroy(struct resolver *r)
{
    pthread_cond_destroy(&r->asked);
    pthread_mutex_destroy(&r->lock);
    sov_free(r);
}

static void *resolver_thread(void *arg)
{
    struct resolver *r = arg;
    pthread_mutex_lock(&r->lock);
    while (r->loop != NULL) {
        struct slot *slot = next_asked(r);
        if (slot == NULL) {
            pthread_cond_wait(&r->asked, &r->lock);
            continue;
        }
        char host[HOST_BYTES_MAX];
        int port = slot->port;
        uint64_t question = slot->question;
        memcpy(host, slot->host, sizeof host);
        slot->state = SLOT_WORKED_ON;
        pthread_mutex_unlock(&r->lock);
        struct resolved answer = {.count = 0};
        ask_system(host, port, 0, &answer);
        pthread_mutex_lock(&r->lock);
        if (r->loop == NULL || slot->question != question) continue;
        slot->answer = answer;
        slot->state = SLOT_ANSWERED;
        loop_wake(r->loop);
    }
    pthread_mutex_unlock(&r->lock);
    resolver_destroy(r);
    return NULL;
}

enum sov_error resolver_create(struct loop *loop, struct resolver **out, struct sov_errbuf *err)
{
    *out = NULL;
    struct resolver *r = sov_calloc(1, sizeof *r);
    if (r == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory to look up names");
    r->loop = loop;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->asked, NULL);
    pthread_t thread;
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    int rc = pthread_create(&thread, &detached, resolver_thread, r);
    pthread_attr_destroy(&detached);
    if (rc != 0) {
        resolver_destroy(r);
        return sov_fail(err, SOV_ERR_IO, "cannot start a thread to look up names (%s)",
                        strerror(rc));
    }
    *out = r;
    return SOV_OK;
}

void resolver_free(struct resolver *r)
{
    if (r == NULL) return;
    pthread_mutex_lock(&r->lock);
    r->loop = NULL;
    pthread_cond_signal(&r->asked);
    pthread_mutex_unlock(&r->lock);
}

void resolver_ask(struct resolver *r, int index, const char *host, int port)
{
    pthread_mutex_lock(&r->lock);
    struct slot *slot = &r->slots[index];
    slot->state = SLOT_ASKED;
    slot->question = ++r->questions;
    snprintf(slot->host, sizeof slot->host, "%s", host);
    slot->port = port;
    pthread_cond_signal(&r->asked);
    pthread_mutex_unlock(&r->lock);
}

bool resolver_answer(struct resolver *r, int index, struct resolved *out)
{
    pthread_mutex_lock(&r->lock);
    struct slot *slot = &r->slots[index];
    bool answered = slot->state == SLOT_ANSWERED;
    if (answered) {
        *out = slot->answer;
        slot->state = SLOT_FREE;
    }
    pthread_mutex_unlock(&r->lock);
    return answered;
}
