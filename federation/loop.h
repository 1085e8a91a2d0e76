/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread's event loop: file descriptors (epoll), timers, and wake-ups from other threads. The
 * links, the node and the local control all live on one loop, so that none of them needs a lock.
 *
 * A watch or a timer belongs to who made it and must be removed before it goes away. Callbacks may
 * add and remove any, also their own; an event of a watch that was removed is not delivered.
 *
 * Threads: loop_wake from any; all else on the loop's thread.
 */
#ifndef SOV_FEDERATION_LOOP_H
#define SOV_FEDERATION_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct loop;

struct loop_watch {
    int fd;
    void (*ready)(void *user, uint32_t events); /* EPOLLIN, ... */
    void *user;
};

struct loop_timer {
    void (*fire)(void *user);
    void *user;
    /* The loop's own. */
    int64_t due_ns;
    struct loop_timer *before, *after;
    bool set;
};

/* Called once in every turn, after events and timers and before the loop waits again. */
struct loop_hook {
    void (*run)(void *user);
    void *user;
    struct loop_hook *next;
};

/* SOV_ERR_IO, SOV_ERR_NOMEM. */
enum sov_error loop_create(struct loop **out, struct sov_errbuf *err);
void loop_free(struct loop *loop);

/* events: EPOLLIN, EPOLLOUT or both (level-triggered). SOV_ERR_IO. */
enum sov_error loop_add(struct loop *loop, struct loop_watch *watch, uint32_t events,
                        struct sov_errbuf *err);
void loop_change(struct loop *loop, struct loop_watch *watch, uint32_t events);
/* Before the descriptor is closed. */
void loop_remove(struct loop *loop, struct loop_watch *watch);

/* (Re)sets it to fire once, at that moment of clock_monotonic_ns. */
void loop_timer_set(struct loop *loop, struct loop_timer *timer, int64_t due_ns);
void loop_timer_cancel(struct loop *loop, struct loop_timer *timer);

void loop_hook_add(struct loop *loop, struct loop_hook *hook);
void loop_hook_remove(struct loop *loop, struct loop_hook *hook);

/* One turn: waits for at most wait_ms (negative: for as long as it takes), then does what is due. */
void loop_turn(struct loop *loop, int wait_ms);
/* The clock as it was when this turn began. */
int64_t loop_now_ns(const struct loop *loop);
/* How long it has waited for events, in all. */
int64_t loop_waited_ns(const struct loop *loop);
/* The loop's thread makes a turn soon. Cheap when it is awake. */
void loop_wake(struct loop *loop);

#endif
