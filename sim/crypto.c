/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A signature is a message authentication code under a secret that never leaves this file; the key tells whose. The
 * rest of the simulator can sign only through sim_sign, and the adversary's code only calls it for its own seats
 * (sim_adversary_emit). What was ever signed is remembered, so that checkers can ask who has voted for what.
 */
#include <string.h>

#include "sim/world.h"

/* seat, generation, then 30 bytes that follow from them and the run. */
void sim_key_make(const struct sim_world *world, uint8_t seat, uint32_t generation,
                  uint8_t key[MESSAGE_KEY_BYTES])
{
    uint64_t word = world->secret ^ sim_mix(seat * 256u + generation + 1);
    for (int i = 0; i < MESSAGE_KEY_BYTES / 8; i++) {
        word = sim_mix(word + 17);
        memcpy(key + 8 * i, &word, 8);
    }
    key[0] = seat;
    key[1] = (uint8_t)generation;
}

static bool is_key(const struct sim_world *world, const uint8_t key[MESSAGE_KEY_BYTES])
{
    uint8_t real[MESSAGE_KEY_BYTES];
    sim_key_make(world, key[0], key[1], real);
    return memcmp(real, key, sizeof real) == 0;
}

static void seal(const struct sim_world *world, const uint8_t key[MESSAGE_KEY_BYTES],
                 const struct message_digest *digest, uint8_t out[MESSAGE_SIGNATURE_BYTES])
{
    uint64_t word = sim_key(digest, sizeof *digest, world->secret, 3, key[0] * 256u + key[1]);
    for (int i = 0; i < MESSAGE_SIGNATURE_BYTES / 8; i++) {
        word = sim_mix(word + 29);
        memcpy(out + 8 * i, &word, 8);
    }
}

bool sim_sign(struct sim_world *world, const uint8_t key[MESSAGE_KEY_BYTES],
              const struct message_digest *digest, uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    memset(signature, 0, MESSAGE_SIGNATURE_BYTES);
    if (!is_key(world, key)) return false;
    seal(world, key, digest, signature);
    sim_map_at(&world->signed_by, sim_key(digest, sizeof *digest, 4, key[0], key[1]), NULL);
    return true;
}

bool sim_verify(const struct sim_world *world, const uint8_t key[MESSAGE_KEY_BYTES],
                const struct message_digest *digest,
                const uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    uint8_t real[MESSAGE_SIGNATURE_BYTES];
    if (!is_key(world, key)) return false;
    seal(world, key, digest, real);
    return memcmp(real, signature, sizeof real) == 0;
}

bool sim_was_signed(const struct sim_world *world, const uint8_t key[MESSAGE_KEY_BYTES],
                    const struct message_digest *digest)
{
    return sim_map_find(&world->signed_by, sim_key(digest, sizeof *digest, 4, key[0], key[1])) !=
           NULL;
}
