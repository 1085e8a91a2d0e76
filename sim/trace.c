/* SPDX-License-Identifier: Apache-2.0 */
/* The story of a run, a line per event; and its digest, by which two runs of a seed are seen to be the same. */
#include <stdarg.h>

#include "sim/world.h"

void sim_tell(struct sim_world *world, const char *format, ...)
{
    if (world->trace.out == NULL) return;
    va_list arguments;
    fprintf(world->trace.out, "%12.3f ms  ", (double)world->now / 1000);
    va_start(arguments, format);
    vfprintf(world->trace.out, format, arguments);
    va_end(arguments);
    fputc('\n', world->trace.out);
}

void sim_digest(struct sim_world *world, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t h = world->trace.digest;
    h = sim_mix(h + world->now);
    h = sim_mix(h * 3 + a);
    h = sim_mix(h * 5 + b);
    world->trace.digest = sim_mix(h * 7 + c);
}

void sim_message_describe(const struct message *m, char *out, size_t size)
{
    int used = snprintf(out, size, "%s by %u", message_kind_name(m->kind), m->sender);
    if (used < 0 || (size_t)used >= size) return;
    out += used, size -= (size_t)used;
    const unsigned epoch = message_epoch(m->view), view = (uint32_t)m->view;
    const unsigned long long sequence = (unsigned long long)m->sequence;
    const uint8_t *d = m->digest.bytes;
    switch (m->kind) {
    case MESSAGE_REQUEST:
        snprintf(out, size, " number %llu, %02x%02x%02x",
                 (unsigned long long)m->batch.requests[0].number, d[0], d[1], d[2]);
        break;
    case MESSAGE_PRE_PREPARE:
    case MESSAGE_LOG_ENTRY:
        snprintf(out, size, " view %u.%u sequence %llu, %u requests, %02x%02x%02x", epoch, view,
                 sequence, m->batch.request_count, d[0], d[1], d[2]);
        break;
    case MESSAGE_PREPARE:
    case MESSAGE_COMMIT:
    case MESSAGE_PREPARED:
    case MESSAGE_CHECKPOINT:
    case MESSAGE_STABLE:
    case MESSAGE_SNAPSHOT:
        snprintf(out, size, " view %u.%u sequence %llu, %02x%02x%02x", epoch, view, sequence, d[0],
                 d[1], d[2]);
        break;
    case MESSAGE_VIEW_CHANGE:
        snprintf(out, size, " to %u.%u from checkpoint %llu, %u prepared", epoch, view, sequence,
                 m->prepared.count);
        break;
    case MESSAGE_NEW_VIEW:
        snprintf(out, size, " %u.%u on %u view changes", epoch, view, m->new_view.count);
        break;
    case MESSAGE_STATUS:
        snprintf(out, size, " view %u.%u stable %llu executed %llu%s%s", epoch, view, sequence,
                 (unsigned long long)m->status.executed,
                 m->status.flags & MESSAGE_STATUS_VIEW_CHANGING ? ", changing" : "",
                 m->status.flags & MESSAGE_STATUS_RECOVERING ? ", recovering" : "");
        break;
    case MESSAGE_FETCH_LOG: snprintf(out, size, " %llu, %u of them", sequence, m->count); break;
    case MESSAGE_FETCH_BATCH:
    case MESSAGE_BATCH:
        snprintf(out, size, " sequence %llu, %02x%02x%02x", sequence, d[0], d[1], d[2]);
        break;
    case MESSAGE_FETCH_VIEW_CHANGE:
        snprintf(out, size, " of %u to %u.%u", m->seat, epoch, view);
        break;
    case MESSAGE_NUMBERS: snprintf(out, size, " up to %llu", sequence); break;
    }
}

const char *sim_violation_name(enum sim_violation violation)
{
    static const char *const names[SIM_VIOLATIONS] = {
        "none",          "agreement", "order",     "validity",     "exactly-once",
        "contradiction", "unproven",  "forgotten", "lost request", "liveness",
        "memory",        "growth",    "blame",     "restart",      "assertion"};
    return violation < SIM_VIOLATIONS ? names[violation] : "?";
}

const char *sim_count_name(int count)
{
    static const char *const names[SIM_COUNT_ENTRIES] = {
        "events",
        "messages",
        "messages lost",
        "messages duplicated",
        "messages reordered",
        "messages cut off by partitions",
        "messages for full queues",
        "messages refused by codec or signature",
        "syncs",
        "crashes",
        "restarts",
        "records lost before their sync",
        "log entries lost",
        "replicas that lost their records",
        "of these, that vote again",
        "requests",
        "requests committed",
        "requests judged invalid",
        "requests whose number was lost",
        "batches decided",
        "null batches",
        "requests repeated in later batches",
        "view changes begun",
        "new views",
        "batches carried into a new view",
        "stable checkpoints",
        "log entries transferred",
        "batches fetched",
        "configurations",
        "verdicts",
        "accusations",
        "messages twisted by the Byzantine",
        "messages invented by the Byzantine",
        "messages withheld by the Byzantine",
    };
    return count < SIM_COUNT_ENTRIES
               ? names[count]
               : sim_entry_name((enum sim_entry_kind)(count - SIM_COUNT_ENTRIES));
}
