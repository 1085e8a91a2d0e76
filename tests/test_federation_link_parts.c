/* SPDX-License-Identifier: Apache-2.0 */
/* What links are made of, each by itself: the loop, the queue, the guard, the names of hosts. */
#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "federation/link_guard.h"
#include "federation/link_queue.h"
#include "federation/link_resolve.h"
#include "federation/loop.h"

enum { SECOND_MS = 1000, WAIT_TURNS = 1000 };
static const int64_t SECOND_NS = 1000000000;

/* ---- the loop ---- */

static struct loop *loop;

static int setup_loop(void **state)
{
    (void)state;
    return loop_create(&loop, NULL) == SOV_OK ? 0 : -1;
}

static int teardown_loop(void **state)
{
    (void)state;
    loop_free(loop);
    return 0;
}

static char fired[32];

static void fire(void *user)
{
    strcat(fired, user);
}

static void test_timers_fire_in_order(void **state)
{
    (void)state;
    struct loop_timer a = {.fire = fire, .user = "a"}, b = {.fire = fire, .user = "b"},
                      c = {.fire = fire, .user = "c"}, d = {.fire = fire, .user = "d"};
    int64_t now = clock_monotonic_ns();
    fired[0] = '\0';
    loop_timer_set(loop, &b, now + 2);
    loop_timer_set(loop, &d, now + 60 * SECOND_NS);
    loop_timer_set(loop, &a, now + 1);
    loop_timer_set(loop, &c, now + 60 * SECOND_NS);
    loop_timer_set(loop, &c, now + 3); /* set anew: the earlier time does not count */
    loop_timer_cancel(loop, &d);
    loop_timer_cancel(loop, &d);
    loop_turn(loop, SECOND_MS);
    assert_string_equal(fired, "abc");
    loop_turn(loop, 0);
    assert_string_equal(fired, "abc");
}

static void test_loop_waits_for_the_next_timer(void **state)
{
    (void)state;
    struct loop_timer a = {.fire = fire, .user = "a"};
    fired[0] = '\0';
    int64_t begin = clock_monotonic_ns();
    loop_timer_set(loop, &a, begin + SECOND_NS / 50);
    for (int i = 0; i < WAIT_TURNS && fired[0] == '\0'; i++) loop_turn(loop, -1);
    assert_string_equal(fired, "a");
    assert_true(clock_monotonic_ns() - begin >= SECOND_NS / 50);
}

struct pair {
    struct loop_watch watch;
    struct pair *other;
    int events;
};

static void on_pair(void *user, uint32_t events)
{
    struct pair *pair = user;
    (void)events;
    pair->events++;
    loop_remove(loop, &pair->other->watch);
}

static void test_removed_watch_gets_no_event(void **state)
{
    (void)state;
    int fds[2][2];
    struct pair a, b;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pipe(fds[i]), 0);
        assert_int_equal(write(fds[i][1], "x", 1), 1);
    }
    a = (struct pair){.watch = {fds[0][0], on_pair, &a}, .other = &b};
    b = (struct pair){.watch = {fds[1][0], on_pair, &b}, .other = &a};
    assert_int_equal(loop_add(loop, &a.watch, EPOLLIN, NULL), SOV_OK);
    assert_int_equal(loop_add(loop, &b.watch, EPOLLIN, NULL), SOV_OK);
    loop_turn(loop, SECOND_MS); /* both are ready, the first removes the second */
    assert_int_equal(a.events + b.events, 1);
    for (int i = 0; i < 2; i++) close(fds[i][0]), close(fds[i][1]);
}

static void *wake_often(void *arg)
{
    _Atomic int *count = arg;
    for (int i = 0; i < 1000; i++) {
        (*count)++;
        loop_wake(loop);
    }
    return NULL;
}

static void test_no_wake_up_is_lost(void **state)
{
    (void)state;
    static _Atomic int count;
    pthread_t thread;
    count = 0;
    assert_int_equal(pthread_create(&thread, NULL, wake_often, &count), 0);
    /* Were one lost, the last turn would wait for ever, and the test's time would end. */
    while (count < 1000) loop_turn(loop, -1);
    pthread_join(thread, NULL);
    loop_wake(loop);
    loop_turn(loop, -1);
}

static void count_turn(void *user)
{
    ++*(int *)user;
}

static void test_hooks_run_every_turn(void **state)
{
    (void)state;
    int turns = 0, more = 0;
    struct loop_hook a = {.run = count_turn, .user = &turns},
                     b = {.run = count_turn, .user = &more};
    loop_hook_add(loop, &a);
    loop_hook_add(loop, &b);
    loop_turn(loop, 0);
    loop_hook_remove(loop, &a);
    loop_turn(loop, 0);
    assert_int_equal(turns, 1);
    assert_int_equal(more, 2);
}

/* ---- the queue ---- */

static void push(struct link_queue *queue, const char *text, int64_t now)
{
    struct link_message *message = link_message_create(text, strlen(text));
    assert_non_null(message);
    link_queue_push(queue, message, now);
    link_message_release(message);
}

static void assert_next(struct link_queue *queue, const char *text, int64_t oldest)
{
    struct link_message *message = link_queue_pop(queue, oldest);
    assert_non_null(message);
    assert_int_equal(message->length, strlen(text));
    assert_memory_equal(message->bytes, text, message->length);
    link_message_release(message);
}

static void test_queue_drops_the_oldest(void **state)
{
    (void)state;
    struct link_queue queue;
    assert_true(link_queue_init(&queue, 3, 10));
    push(&queue, "one", 1);
    push(&queue, "two", 2);
    push(&queue, "3", 3);
    push(&queue, "4", 4); /* one too many */
    assert_int_equal(queue.overflowed, 1);
    assert_next(&queue, "two", 0);
    push(&queue, "seven77", 5);
    push(&queue, "eight888", 6); /* too many bytes, though not too many */
    assert_int_equal(queue.overflowed, 4);
    assert_int_equal(queue.bytes, 8);
    push(&queue, "eleven11111", 7); /* never fits: what is there stays */
    assert_int_equal(queue.overflowed, 5);
    assert_next(&queue, "eight888", 0);
    assert_null(link_queue_pop(&queue, 0));
    assert_int_equal(queue.bytes, 0);
    link_queue_free(&queue);
}

static void test_queue_drops_what_is_old(void **state)
{
    (void)state;
    struct link_queue queue;
    assert_true(link_queue_init(&queue, 8, 100));
    for (int i = 0; i < 5; i++) push(&queue, "abcde", i);
    assert_next(&queue, "abcde", 3);
    assert_int_equal(queue.stale, 3);
    assert_int_equal(queue.count, 1);
    link_queue_free(&queue);
}

static void test_message_is_shared(void **state)
{
    (void)state;
    struct link_queue a, b;
    assert_true(link_queue_init(&a, 2, 100) && link_queue_init(&b, 2, 100));
    struct link_message *message = link_message_create("shared", 6);
    link_queue_push(&a, message, 0);
    link_queue_push(&b, message, 0);
    assert_int_equal(message->references, 3);
    link_message_release(message);
    link_queue_free(&a);
    assert_next(&b, "shared", 0);
    link_queue_free(&b);
}

/* ---- the guard ---- */

static struct guard_address v4(const char *text)
{
    struct sockaddr_storage storage = {.ss_family = AF_INET};
    assert_int_equal(inet_pton(AF_INET, text, &((struct sockaddr_in *)&storage)->sin_addr), 1);
    return guard_address_of(&storage);
}

static struct guard_address v6(const char *text)
{
    struct sockaddr_storage storage = {.ss_family = AF_INET6};
    assert_int_equal(inet_pton(AF_INET6, text, &((struct sockaddr_in6 *)&storage)->sin6_addr), 1);
    return guard_address_of(&storage);
}

static bool same(struct guard_address a, struct guard_address b)
{
    return guard_address_equal(&a, &b);
}

static void test_addresses(void **state)
{
    (void)state;
    assert_true(same(v4("192.0.2.1"), v6("::ffff:192.0.2.1")));
    assert_false(same(v4("192.0.2.1"), v4("192.0.2.2")));
    assert_true(same(v6("2001:db8:0:1::1"), v6("2001:db8:0:1:ffff::2")));
    assert_false(same(v6("2001:db8:0:1::1"), v6("2001:db8:0:2::1")));
}

static void test_flood_from_one_address(void **state)
{
    (void)state;
    static struct link_guard guard;
    struct guard_address bad = v4("192.0.2.1"), good = v4("192.0.2.2");
    guard_init(&guard, 0);
    int let_in = 0;
    for (int i = 0; i < 10 * GUARD_BURST; i++) {
        if (guard_enter(&guard, &bad, true, 0) != GUARD_COME) continue;
        let_in++;
        guard_leave(&guard, &bad);
    }
    assert_int_equal(let_in, GUARD_BURST);
    assert_int_equal(guard_enter(&guard, &bad, true, 0), GUARD_REFUSE);
    assert_int_equal(guard_enter(&guard, &good, true, 0), GUARD_COME);
    /* A second later it may again, as often as the rate says. */
    let_in = 0;
    for (int i = 0; i < 10 * GUARD_RATE; i++) {
        if (guard_enter(&guard, &bad, true, SECOND_NS) != GUARD_COME) continue;
        let_in++;
        guard_leave(&guard, &bad);
    }
    assert_int_equal(let_in, GUARD_RATE);
}

static void test_flood_from_very_many_addresses(void **state)
{
    (void)state;
    static struct link_guard guard;
    struct guard_address member = v4("192.0.2.1");
    guard_init(&guard, 0);
    int let_in = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        struct guard_address stranger = {{0}};
        memcpy(stranger.bytes, &i, sizeof i);
        if (guard_enter(&guard, &stranger, false, 0) != GUARD_COME) continue;
        let_in++;
        guard_leave(&guard, &stranger);
    }
    assert_int_equal(let_in, GUARD_STRANGERS_BURST);
    assert_int_equal(guard_enter(&guard, &member, true, 0), GUARD_COME);
}

static void test_room_is_made_for_the_newest(void **state)
{
    (void)state;
    static struct link_guard guard;
    struct guard_address first = v4("192.0.2.1");
    guard_init(&guard, 0);
    for (int i = 0; i < GUARD_PENDING_PER_ADDRESS; i++)
        assert_int_equal(guard_enter(&guard, &first, true, 0), GUARD_COME);
    assert_int_equal(guard_enter(&guard, &first, true, 0), GUARD_OLDEST_OF_SAME);
    guard_leave(&guard, &first);
    assert_int_equal(guard_enter(&guard, &first, true, 0), GUARD_COME);
    for (int i = GUARD_PENDING_PER_ADDRESS; i < GUARD_PENDING_MAX; i++) {
        struct guard_address other = {{1, (unsigned char)i, (unsigned char)(i >> 8)}};
        assert_int_equal(guard_enter(&guard, &other, true, 0), GUARD_COME);
    }
    struct guard_address last = v4("192.0.2.9");
    assert_int_equal(guard_enter(&guard, &last, true, 0), GUARD_OLDEST);
    guard_leave(&guard, &first);
    assert_int_equal(guard_enter(&guard, &last, true, 0), GUARD_COME);
}

/* ---- names ---- */

static void test_numeric_addresses_need_nobody(void **state)
{
    (void)state;
    struct resolved out;
    assert_true(resolve_numeric("127.0.0.1", 4000, &out));
    assert_int_equal(out.count, 1);
    assert_int_equal(ntohs(((struct sockaddr_in *)&out.addresses[0])->sin_port), 4000);
    assert_true(resolve_numeric("::1", 4000, &out));
    assert_int_equal(out.addresses[0].ss_family, AF_INET6);
    assert_false(resolve_numeric("localhost", 4000, &out));
    assert_false(resolve_numeric("", 4000, &out));
}

static void test_names_are_looked_up_beside_the_loop(void **state)
{
    (void)state;
    struct resolver *resolver;
    struct resolved good = {.count = -1}, bad = {.count = -1};
    assert_int_equal(resolver_create(loop, &resolver, NULL), SOV_OK);
    resolver_ask(resolver, 3, "forgotten.invalid", 1);
    resolver_ask(resolver, 3, "localhost", 4000);
    resolver_ask(resolver, 4, "no.such.host.invalid", 4000);
    bool have_good = false, have_bad = false;
    for (int i = 0; i < WAIT_TURNS && !(have_good && have_bad); i++) {
        if (!have_good) have_good = resolver_answer(resolver, 3, &good);
        if (!have_bad) have_bad = resolver_answer(resolver, 4, &bad);
        if (!(have_good && have_bad)) loop_turn(loop, 30 * SECOND_MS);
    }
    assert_true(have_good && have_bad);
    assert_true(good.count >= 1);
    assert_int_equal(bad.count, 0);
    assert_false(resolver_answer(resolver, 3, &good));
    resolver_ask(resolver, 5, "no.such.host.invalid", 4000);
    resolver_free(resolver); /* does not wait for the answer */
}

int main(void)
{
#define LOOP_TEST(name) cmocka_unit_test_setup_teardown(name, setup_loop, teardown_loop)
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_timers_fire_in_order),
        LOOP_TEST(test_loop_waits_for_the_next_timer),
        LOOP_TEST(test_removed_watch_gets_no_event),
        LOOP_TEST(test_no_wake_up_is_lost),
        LOOP_TEST(test_hooks_run_every_turn),
        cmocka_unit_test(test_queue_drops_the_oldest),
        cmocka_unit_test(test_queue_drops_what_is_old),
        cmocka_unit_test(test_message_is_shared),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_flood_from_one_address),
        cmocka_unit_test(test_flood_from_very_many_addresses),
        cmocka_unit_test(test_room_is_made_for_the_newest),
        cmocka_unit_test(test_numeric_addresses_need_nobody),
        LOOP_TEST(test_names_are_looked_up_beside_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
