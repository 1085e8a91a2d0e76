/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A replica's store. What is written waits for a sync, which covers all that was written before it began (group
 * commit); a crash keeps a prefix of what a sync under way covers, and nothing behind it. A full disk ends no sync.
 * Log entries lie apart: they are served to others and stay for ever.
 */
#include <stdlib.h>
#include <string.h>

#include "sim/world.h"

enum { RECORDS_KEPT_MAX = 300 }; /* by a store that is not eager to drop what may go */

static void *grow(void *array, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity) return array;
    size_t wanted = *capacity != 0 ? 2 * *capacity : 64;
    uint8_t *bigger = sim_alloc(wanted, size);
    if (count > 0) memcpy(bigger, array, count * size);
    free(array);
    *capacity = wanted;
    return bigger;
}

static void record_drop(struct sim_record *record)
{
    sim_bytes_drop(record->bytes);
    record->bytes = NULL;
}

/* By the table in pbft.h. */
static bool may_go(const struct sim_disk *disk, const struct sim_record *record,
                   const uint64_t newest[3])
{
    switch (record->kind) {
    case MESSAGE_NUMBERS: return record->token != newest[0];
    case MESSAGE_SNAPSHOT: return record->token != newest[1];
    case MESSAGE_STABLE: return record->token != newest[2];
    case MESSAGE_VIEW_CHANGE:
    case MESSAGE_NEW_VIEW: return record->view < disk->view;
    case MESSAGE_PREPARED:
    case MESSAGE_PRE_PREPARE: return record->sequence <= disk->stable;
    default: return false;
    }
}

static void collect(struct sim_disk *disk)
{
    uint64_t newest[3] = {0}; /* positions stand in for tokens: those begin anew with each life */
    for (size_t i = 0; i < disk->count; i++) {
        disk->records[i].token = i + 1;
        if (disk->records[i].kind == MESSAGE_NUMBERS) newest[0] = i + 1;
        if (disk->records[i].kind == MESSAGE_SNAPSHOT) newest[1] = i + 1;
        if (disk->records[i].kind == MESSAGE_STABLE) newest[2] = i + 1;
    }
    size_t kept = 0;
    for (size_t i = 0; i < disk->count; i++) {
        if (may_go(disk, &disk->records[i], newest))
            record_drop(&disk->records[i]);
        else
            disk->records[kept++] = disk->records[i];
    }
    disk->count = kept;
}

static void keep(struct sim_node *node, struct sim_record *record)
{
    struct sim_disk *disk = &node->disk;
    if (record->kind == MESSAGE_LOG_ENTRY) {
        while (disk->log_count <= record->sequence) {
            disk->log = grow(disk->log, disk->log_count, &disk->log_capacity, sizeof *disk->log);
            disk->log[disk->log_count++] = NULL;
        }
        sim_bytes_drop(disk->log[record->sequence]);
        disk->log[record->sequence] = record->bytes;
        return;
    }
    for (size_t i = 0; i < disk->count; i++) {
        struct sim_record *old = &disk->records[i];
        if (old->kind != record->kind || old->view != record->view ||
            old->sequence != record->sequence)
            continue;
        record_drop(old);
        memmove(old, old + 1, (disk->count - i - 1) * sizeof *old);
        disk->count--;
        break;
    }
    disk->records = grow(disk->records, disk->count, &disk->capacity, sizeof *disk->records);
    disk->records[disk->count++] = *record;
    if (record->kind == MESSAGE_STABLE && record->sequence > disk->stable)
        disk->stable = record->sequence;
    if ((record->kind == MESSAGE_NEW_VIEW ||
         (record->kind == MESSAGE_VIEW_CHANGE && record->sequence == node->seat)) &&
        record->view > disk->view)
        disk->view = record->view;
}

void sim_disk_resume(struct sim_node *node)
{
    struct sim_world *world = node->world;
    struct sim_disk *disk = &node->disk;
    if (disk->syncing || disk->pending_count == 0 || !node->up || disk->full > 0) return;
    disk->syncing = true;
    disk->sync_token = disk->pending[disk->pending_count - 1].token;
    uint64_t delay =
        sim_between(&node->random, world->setup->sync_us_min, world->setup->sync_us_max);
    sim_schedule(world, delay + disk->slow_us,
                 &(struct sim_event){.kind = SIM_EVENT_SYNCED,
                                     .node = node->index,
                                     .life = node->life,
                                     .number = disk->sync_token});
}

void sim_disk_write(struct sim_node *node, const struct pbft_effect *effect)
{
    struct sim_disk *disk = &node->disk;
    disk->pending =
        grow(disk->pending, disk->pending_count, &disk->pending_capacity, sizeof *disk->pending);
    const bool log = effect->kind == PBFT_EFFECT_DELIVER;
    disk->pending[disk->pending_count++] =
        (struct sim_record){.kind = effect->message->kind,
                            .view = effect->key_view,
                            .sequence = log ? effect->sequence : effect->key_sequence,
                            .token = effect->token,
                            .bytes = sim_encode(effect->message)};
    sim_disk_resume(node);
}

/* The first `count` of what is pending are on the disk now. */
static void settle(struct sim_node *node, size_t count)
{
    struct sim_disk *disk = &node->disk;
    for (size_t i = 0; i < count; i++) keep(node, &disk->pending[i]);
    disk->pending_count -= count;
    memmove(disk->pending, disk->pending + count, disk->pending_count * sizeof *disk->pending);
    if ((node->world->setup->eager >> node->seat & 1) || disk->count > RECORDS_KEPT_MAX)
        collect(disk);
}

static size_t covered(const struct sim_disk *disk, uint64_t token)
{
    size_t count = 0;
    while (count < disk->pending_count && disk->pending[count].token <= token) count++;
    return count;
}

void sim_disk_synced(struct sim_node *node, uint64_t token)
{
    struct sim_disk *disk = &node->disk;
    disk->syncing = false;
    if (disk->full > 0) return; /* the sync failed; it is done again when there is room */
    settle(node, covered(disk, token));
    sim_count(node->world, SIM_COUNT_SYNCS);
    sim_node_step(node, &(struct pbft_event){.kind = PBFT_EVENT_DURABLE, .token = token});
    sim_disk_resume(node);
}

void sim_disk_crash(struct sim_node *node)
{
    struct sim_disk *disk = &node->disk;
    if (disk->syncing && disk->full == 0)
        settle(node, sim_below(&node->random, covered(disk, disk->sync_token) + 1));
    for (size_t i = 0; i < disk->pending_count; i++) {
        record_drop(&disk->pending[i]);
        sim_count(node->world, SIM_COUNT_UNSYNCED_LOST);
    }
    disk->pending_count = 0;
    disk->syncing = false;
}

void sim_disk_wipe(struct sim_node *node, bool keep_log)
{
    struct sim_disk *disk = &node->disk;
    for (size_t i = 0; i < disk->count; i++) record_drop(&disk->records[i]);
    disk->count = 0;
    disk->stable = disk->view = 0;
    while (!keep_log && disk->log_count > 0) sim_bytes_drop(disk->log[--disk->log_count]);
}

static bool restore_one(struct sim_node *node, const struct sim_bytes *bytes)
{
    struct message record;
    struct sov_errbuf err = {""};
    if (message_decode(bytes->data, bytes->length, &node->scratch, &record, &err) == SOV_OK &&
        pbft_restore(node->core, &record, &err) == SOV_OK)
        return true;
    char text[200];
    sim_message_describe(&record, text, sizeof text);
    sim_violate(node->world, SIM_RESTART, "replica %u refuses its own record %s: %s", node->seat,
                text, err.message);
    return false;
}

static int by_view(const struct sim_record *a, const struct sim_record *b)
{
    if (a->view != b->view) return a->view < b->view ? -1 : 1;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    return a->sequence < b->sequence ? -1 : a->sequence > b->sequence;
}

static bool restore_newest(struct sim_node *node, enum message_kind kind)
{
    const struct sim_record *last = NULL;
    for (size_t i = 0; i < node->disk.count; i++)
        if (node->disk.records[i].kind == kind) last = &node->disk.records[i];
    return last == NULL || restore_one(node, last->bytes);
}

/* By ascending view, kind and sequence: each time the least that is above the one before. */
static bool restore_all(struct sim_node *node, enum message_kind kind, enum message_kind other)
{
    const struct sim_disk *disk = &node->disk;
    const struct sim_record *last = NULL;
    for (;;) {
        const struct sim_record *next = NULL;
        for (size_t i = 0; i < disk->count; i++) {
            const struct sim_record *record = &disk->records[i];
            if (record->kind != kind && record->kind != other) continue;
            if (last != NULL && by_view(record, last) <= 0) continue;
            if (next == NULL || by_view(record, next) < 0) next = record;
        }
        if (next == NULL) return true;
        if (!restore_one(node, next->bytes)) return false;
        last = next;
    }
}

static uint64_t newest_snapshot(const struct sim_disk *disk)
{
    uint64_t sequence = 0;
    for (size_t i = 0; i < disk->count; i++)
        if (disk->records[i].kind == MESSAGE_SNAPSHOT) sequence = disk->records[i].sequence;
    return sequence;
}

/* Checksums tell that they are damaged: they are as good as not there, with what stands behind them. */
void sim_disk_lose_log(struct sim_node *node, uint32_t entries)
{
    struct sim_disk *disk = &node->disk;
    const uint64_t snapshot = newest_snapshot(disk);
    while (entries-- > 0 && disk->log_count > snapshot + 1) {
        sim_bytes_drop(disk->log[--disk->log_count]);
        sim_count(node->world, SIM_COUNT_LOG_LOST);
    }
}

bool sim_disk_restore(struct sim_node *node)
{
    const struct sim_disk *disk = &node->disk;
    if (!restore_newest(node, MESSAGE_NUMBERS) || !restore_newest(node, MESSAGE_SNAPSHOT) ||
        !restore_newest(node, MESSAGE_STABLE))
        return false;
    for (uint64_t s = newest_snapshot(disk) + 1; s < disk->log_count && disk->log[s] != NULL; s++)
        if (!restore_one(node, disk->log[s])) return false;
    return restore_all(node, MESSAGE_VIEW_CHANGE, MESSAGE_NEW_VIEW) &&
           restore_all(node, MESSAGE_PREPARED, MESSAGE_PREPARED) &&
           restore_all(node, MESSAGE_PRE_PREPARE, MESSAGE_PRE_PREPARE);
}

void sim_disk_free(struct sim_disk *disk)
{
    for (size_t i = 0; i < disk->count; i++) record_drop(&disk->records[i]);
    for (size_t i = 0; i < disk->pending_count; i++) record_drop(&disk->pending[i]);
    for (size_t i = 0; i < disk->log_count; i++) sim_bytes_drop(disk->log[i]);
    free(disk->records);
    free(disk->pending);
    free(disk->log);
    *disk = (struct sim_disk){0};
}
