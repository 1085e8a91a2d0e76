/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers are a list in the order in which they are due: there are a few per peer, and those that are
 * set often (silence on a link) are set to fire now and then and look at the time themselves.
 */
#include "federation/loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

enum { LOOP_EVENTS = 128 };

struct loop {
    int epoll;
    struct loop_watch wake;
    atomic_bool woken;
    int64_t now_ns, waited_ns;
    struct loop_timer *first, *last;
    struct loop_hook *hooks;
    /* Events of this turn that are still to be delivered. */
    struct epoll_event events[LOOP_EVENTS];
    int event_count, event_next;
};

static void on_wake(void *user, uint32_t events)
{
    struct loop *loop = user;
    uint64_t count;
    (void)events;
    ssize_t got = read(loop->wake.fd, &count, sizeof count);
    (void)got;
    /*
     * In this order: who finds it still set has queued its work before, and the hooks of this turn
     * see that; who sets it anew writes again, for the next turn.
     */
    atomic_store(&loop->woken, false);
}

enum sov_error loop_create(struct loop **out, struct sov_errbuf *err)
{
    *out = NULL;
    struct loop *loop = sov_calloc(1, sizeof *loop);
    if (loop == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory for an event loop");
    loop->now_ns = clock_monotonic_ns();
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->wake = (struct loop_watch){
        .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = on_wake, .user = loop};
    enum sov_error rc = SOV_OK;
    if (loop->epoll < 0 || loop->wake.fd < 0)
        rc = sov_fail(err, SOV_ERR_IO, "cannot make an event loop (%s)", strerror(errno));
    if (rc == SOV_OK) rc = loop_add(loop, &loop->wake, EPOLLIN, err);
    if (rc != SOV_OK) {
        loop_free(loop);
        return rc;
    }
    *out = loop;
    return SOV_OK;
}

void loop_free(struct loop *loop)
{
    if (loop == NULL) return;
    if (loop->wake.fd >= 0) close(loop->wake.fd);
    if (loop->epoll >= 0) close(loop->epoll);
    sov_free(loop);
}

enum sov_error loop_add(struct loop *loop, struct loop_watch *watch, uint32_t events,
                        struct sov_errbuf *err)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, watch->fd, &event) != 0)
        return sov_fail(err, SOV_ERR_IO, "cannot watch a socket (%s)", strerror(errno));
    return SOV_OK;
}

void loop_change(struct loop *loop, struct loop_watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    epoll_ctl(loop->epoll, EPOLL_CTL_MOD, watch->fd, &event);
}

void loop_remove(struct loop *loop, struct loop_watch *watch)
{
    epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
    for (int i = loop->event_next; i < loop->event_count; i++)
        if (loop->events[i].data.ptr == watch) loop->events[i].data.ptr = NULL;
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *timer)
{
    if (!timer->set) return;
    if (timer->before != NULL) timer->before->after = timer->after;
    if (timer->after != NULL) timer->after->before = timer->before;
    if (loop->first == timer) loop->first = timer->after;
    if (loop->last == timer) loop->last = timer->before;
    timer->before = timer->after = NULL;
    timer->set = false;
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, int64_t due_ns)
{
    loop_timer_cancel(loop, timer);
    timer->due_ns = due_ns;
    timer->set = true;
    /* Most are set to later than all others. */
    struct loop_timer *before = loop->last;
    while (before != NULL && before->due_ns > due_ns) before = before->before;
    timer->before = before;
    timer->after = before != NULL ? before->after : loop->first;
    if (timer->after != NULL) timer->after->before = timer;
    if (before != NULL) before->after = timer;
    if (loop->first == timer->after) loop->first = timer;
    if (loop->last == before) loop->last = timer;
}

void loop_hook_add(struct loop *loop, struct loop_hook *hook)
{
    struct loop_hook **at = &loop->hooks;
    while (*at != NULL) at = &(*at)->next;
    hook->next = NULL;
    *at = hook;
}

void loop_hook_remove(struct loop *loop, struct loop_hook *hook)
{
    struct loop_hook **at = &loop->hooks;
    while (*at != NULL && *at != hook) at = &(*at)->next;
    if (*at != NULL) *at = (*at)->next;
}

int64_t loop_now_ns(const struct loop *loop)
{
    return loop->now_ns;
}

int64_t loop_waited_ns(const struct loop *loop)
{
    return loop->waited_ns;
}

void loop_wake(struct loop *loop)
{
    if (atomic_exchange(&loop->woken, true)) return;
    uint64_t one = 1;
    ssize_t put = write(loop->wake.fd, &one, sizeof one);
    (void)put; /* it fails only when the counter is full, and then the loop is awake */
}

static int wait_for(struct loop *loop, int wait_ms)
{
    int64_t begin = clock_monotonic_ns();
    if (loop->first != NULL) {
        int64_t ns = loop->first->due_ns - begin;
        int64_t ms = ns <= 0 ? 0 : (ns + 999999) / 1000000;
        if (wait_ms < 0 || ms < wait_ms) wait_ms = ms < INT32_MAX ? (int)ms : INT32_MAX;
    }
    int count = epoll_wait(loop->epoll, loop->events, LOOP_EVENTS, wait_ms);
    loop->now_ns = clock_monotonic_ns();
    loop->waited_ns += loop->now_ns - begin;
    return count;
}

void loop_turn(struct loop *loop, int wait_ms)
{
    int count = wait_for(loop, wait_ms);
    loop->event_count = count > 0 ? count : 0;
    for (loop->event_next = 0; loop->event_next < loop->event_count;) {
        struct epoll_event *event = &loop->events[loop->event_next++];
        struct loop_watch *watch = event->data.ptr;
        if (watch != NULL) watch->ready(watch->user, event->events);
    }
    while (loop->first != NULL && loop->first->due_ns <= loop->now_ns) {
        struct loop_timer *timer = loop->first;
        loop_timer_cancel(loop, timer);
        timer->fire(timer->user);
    }
    for (struct loop_hook *hook = loop->hooks, *next; hook != NULL; hook = next) {
        next = hook->next;
        hook->run(hook->user);
    }
}
