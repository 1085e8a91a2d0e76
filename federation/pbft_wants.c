/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Votes that are not needed any more: what they would have shown is shown. A vote that is dropped here
 * accuses nobody either, should it contradict an earlier one; the certificate stands without it.
 */
#include "federation/pbft_private.h"

bool pbft_wants(const struct pbft *core, const struct message *message)
{
    if (message->kind != MESSAGE_PREPARE && message->kind != MESSAGE_COMMIT) return true;
    if (message->sequence <= core->low) return false;
    if (message->sequence > core->low + core->config.limits.window) return false;
    const struct pbft_slot *slot = &core->slots[message->sequence % core->config.limits.window];
    if (slot->sequence != message->sequence) return true;
    if (slot->committed.present) return false;
    return message->kind == MESSAGE_COMMIT || !slot->prepared.present ||
           slot->prepared.view < message->view;
}
