/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core itself reads the log, as it does after a restart (pbft_restore): it checks quorums, follows
 * the changes of the configuration and computes the chain. What it leaves to its shell, signatures and
 * digests, is done here: digests by decoding, signatures by all CPUs, for many entries at a time.
 */
#include "federation/certificate.h"

#include <limits.h>
#include <string.h>

#include <sodium.h>

#include "base/mem.h"
#include "base/pool.h"
#include "federation/pbft.h"

/* ---- one certificate ---- */

static const struct message_member *member_of(const struct message_member *members, uint32_t count,
                                              uint8_t seat)
{
    for (uint32_t i = 0; i < count; i++)
        if (members[i].seat == seat && members[i].active) return &members[i];
    return NULL;
}

/* Everything but the signatures. */
static enum sov_error check_votes(const struct message_certificate *certificate,
                                  const struct message_member *members, uint32_t count,
                                  struct sov_errbuf *err)
{
    uint32_t quorum = pbft_quorum(count);
    if (certificate->count < quorum)
        return sov_fail(err, SOV_ERR_FORMAT,
                        "the certificate has %u signatures; a quorum of %u members is %u",
                        certificate->count, count, quorum);
    for (uint32_t i = 0; i < certificate->count; i++) {
        uint8_t seat = certificate->votes[i].seat;
        if (i > 0 && seat <= certificate->votes[i - 1].seat)
            return sov_fail(err, SOV_ERR_FORMAT,
                            "the certificate has member %u twice, or out of order", seat);
        if (member_of(members, count, seat) == NULL)
            return sov_fail(err, SOV_ERR_FORMAT,
                            "the certificate has a signature of %u, who was no member then", seat);
    }
    return SOV_OK;
}

static void vote_digest(const struct message *entry, const struct message_digest *federation,
                        struct message_digest *out)
{
    message_vote_digest(MESSAGE_COMMIT, federation, entry->view, entry->sequence, &entry->digest,
                        out);
}

static bool is_signed(const struct message_digest *digest, const uint8_t *signature,
                      const uint8_t *key)
{
    return crypto_sign_verify_detached(signature, digest->bytes, sizeof digest->bytes, key) == 0;
}

static enum sov_error bad_signature(uint8_t seat, struct sov_errbuf *err)
{
    return sov_fail(err, SOV_ERR_FORMAT,
                    "the signature of member %u in the certificate is not one for this batch",
                    seat);
}

enum sov_error fed_certificate_verify(const struct message *entry,
                                      const struct message_digest *federation,
                                      const struct message_member *members, uint32_t count,
                                      struct sov_errbuf *err)
{
    struct message_digest digest;
    enum sov_error error = check_votes(&entry->certificate, members, count, err);
    if (error != SOV_OK) return error;
    vote_digest(entry, federation, &digest);
    for (uint32_t i = 0; i < entry->certificate.count; i++) {
        const struct message_vote *vote = &entry->certificate.votes[i];
        const struct message_member *member = member_of(members, count, vote->seat);
        if (member == NULL || !is_signed(&digest, vote->signature, member->key))
            return bad_signature(vote->seat, err);
    }
    return SOV_OK;
}

/* ---- whole logs ---- */

/* A signature that is still to be checked. */
struct job {
    uint64_t sequence;
    struct message_digest digest;
    uint8_t seat, key[MESSAGE_KEY_BYTES], signature[MESSAGE_SIGNATURE_BYTES];
    bool good;
};

/* What an entry adds to the figures once its signatures are found good. */
struct entry_counts {
    uint64_t sequence;
    uint32_t requests, patterns;
};

struct fed_verifier {
    struct fed_config config;
    struct pbft *core;
    struct message_scratch scratch;
    struct pool *pool;
    struct strbuf bytes; /* of the entry that is being added: it outlives the caller's */
    struct job *jobs;    /* [FED_VERIFY_BATCH * PBFT_MEMBERS_MAX] */
    int job_count;
    struct entry_counts entries[FED_VERIFY_BATCH];
    int entry_count;
    struct fed_verified result;
};

static void sign_nothing(void *user, const struct message_digest *digest,
                         uint8_t signature[MESSAGE_SIGNATURE_BYTES])
{
    (void)user;
    (void)digest;
    memset(signature, 0, MESSAGE_SIGNATURE_BYTES);
}

enum sov_error fed_verifier_create(const struct fed_config *config, int threads,
                                   struct fed_verifier **out, struct sov_errbuf *err)
{
    struct pbft_config core;
    *out = NULL;
    struct fed_verifier *v = sov_calloc(1, sizeof *v);
    if (v == NULL) return sov_fail(err, SOV_ERR_NOMEM, "no memory to verify a log");
    v->config = *config;
    v->result.head = config->federation;
    v->result.members = config->member_count;
    v->jobs = sov_calloc((size_t)FED_VERIFY_BATCH * PBFT_MEMBERS_MAX, sizeof *v->jobs);
    fed_config_core(&v->config, v->config.members[0].seat, &core);
    core.sign = sign_nothing; /* it is never started, so it never signs */
    enum sov_error error = v->jobs != NULL
                               ? pbft_create(&core, &v->core, err)
                               : sov_fail(err, SOV_ERR_NOMEM, "no memory to verify a log");
    if (error == SOV_OK)
        error = message_scratch_init(&v->scratch, &core.limits, &config->federation, err);
    if (error == SOV_OK)
        error = pool_create(threads > 0 ? threads : pool_default_threads(), &v->pool, err);
    if (error != SOV_OK) {
        fed_verifier_free(v);
        return error;
    }
    *out = v;
    return SOV_OK;
}

void fed_verifier_free(struct fed_verifier *verifier)
{
    if (verifier == NULL) return;
    if (verifier->pool != NULL) pool_free(verifier->pool);
    message_scratch_free(&verifier->scratch);
    if (verifier->core != NULL) pbft_free(verifier->core);
    strbuf_free(&verifier->bytes);
    sov_free(verifier->jobs);
    sov_free(verifier);
}

struct message_scratch *fed_verifier_scratch(struct fed_verifier *verifier)
{
    return &verifier->scratch;
}

void fed_verifier_result(const struct fed_verifier *verifier, struct fed_verified *out)
{
    *out = verifier->result;
}

static void check_share(void *arg, int worker, int workers)
{
    struct fed_verifier *v = arg;
    int begin, end;
    pool_share(v->job_count, worker, workers, &begin, &end);
    for (int i = begin; i < end; i++)
        v->jobs[i].good = is_signed(&v->jobs[i].digest, v->jobs[i].signature, v->jobs[i].key);
}

/* Checks all signatures that wait; the first bad one is the error. */
static enum sov_error check_jobs(struct fed_verifier *v, struct sov_errbuf *err)
{
    uint64_t wrong = UINT64_MAX;
    enum sov_error error = SOV_OK;
    if (v->job_count > 0) pool_run(v->pool, check_share, v);
    for (int i = 0; i < v->job_count && error == SOV_OK; i++) {
        if (v->jobs[i].good) {
            v->result.signatures++;
            continue;
        }
        wrong = v->jobs[i].sequence;
        error = bad_signature(v->jobs[i].seat, err);
    }
    for (int i = 0; i < v->entry_count && v->entries[i].sequence < wrong; i++) {
        v->result.batches++;
        v->result.requests += v->entries[i].requests;
        v->result.patterns += v->entries[i].patterns;
    }
    v->job_count = v->entry_count = 0;
    if (error != SOV_OK) v->result.wrong = wrong;
    return error;
}

/* Something is wrong with this entry, unless an earlier one has a bad signature. */
static enum sov_error wrong(struct fed_verifier *v, uint64_t sequence, enum sov_error code,
                            const char *problem, struct sov_errbuf *err)
{
    enum sov_error error = check_jobs(v, err);
    if (error != SOV_OK) return error;
    if (code != SOV_ERR_NOMEM) {
        v->result.wrong = sequence;
        code = SOV_ERR_FORMAT;
    }
    return sov_fail(err, code, "%s", problem);
}

static enum sov_error add_jobs(struct fed_verifier *v, const struct message *entry,
                               struct sov_errbuf *err)
{
    uint32_t count;
    const struct message_member *members = pbft_members(v->core, &count);
    struct message_digest digest;
    struct pbft_status status;
    pbft_status(v->core, &status);
    if (message_epoch(entry->view) != message_epoch(status.view))
        return sov_fail(err, SOV_ERR_FORMAT,
                        "the certificate is of configuration %u; at this place %u was in force",
                        message_epoch(entry->view), message_epoch(status.view));
    enum sov_error error = check_votes(&entry->certificate, members, count, err);
    if (error != SOV_OK) return error;
    vote_digest(entry, &v->config.federation, &digest);
    for (uint32_t i = 0; i < entry->certificate.count; i++) {
        const struct message_vote *vote = &entry->certificate.votes[i];
        const struct message_member *member = member_of(members, count, vote->seat);
        if (member == NULL) return bad_signature(vote->seat, err);
        struct job *job = &v->jobs[v->job_count++];
        *job = (struct job){.sequence = entry->sequence, .digest = digest, .seat = vote->seat};
        memcpy(job->key, member->key, sizeof job->key);
        memcpy(job->signature, vote->signature, sizeof job->signature);
    }
    v->entries[v->entry_count++] = (struct entry_counts){
        entry->sequence, entry->batch.request_count, entry->batch.pattern_count};
    return SOV_OK;
}

static enum sov_error read_entry(struct fed_verifier *v, uint64_t sequence,
                                 const struct message_digest *digest, struct message *entry,
                                 struct sov_errbuf *err)
{
    enum sov_error error =
        message_decode((const uint8_t *)v->bytes.data, v->bytes.length, &v->scratch, entry, err);
    if (error != SOV_OK) return error;
    if (entry->kind != MESSAGE_LOG_ENTRY)
        return sov_fail(err, SOV_ERR_FORMAT, "is a %s", message_kind_name(entry->kind));
    struct pbft_status status;
    pbft_status(v->core, &status);
    if (entry->sequence != sequence || sequence != status.executed + 1)
        return sov_fail(err, SOV_ERR_FORMAT, "is not the next one: %llu is",
                        (unsigned long long)status.executed + 1);
    if (digest != NULL && !message_digest_equal(digest, &entry->digest))
        return sov_fail(err, SOV_ERR_FORMAT,
                        "its digest is not that of its requests: one of them was changed");
    return SOV_OK;
}

static enum sov_error follow(struct fed_verifier *v, const struct message *entry,
                             const struct message_digest *head, struct sov_errbuf *err)
{
    struct pbft_status status;
    enum sov_error error = pbft_restore(v->core, entry, err);
    if (error != SOV_OK) return error;
    pbft_status(v->core, &status);
    v->result.head = status.head;
    v->result.epoch = message_epoch(status.view);
    v->result.members = status.member_count;
    if (head == NULL || message_digest_equal(head, &status.head)) return SOV_OK;
    return sov_fail(err, SOV_ERR_FORMAT, "its head is not that of the chain up to here");
}

enum sov_error fed_verifier_add(struct fed_verifier *verifier, uint64_t sequence,
                                const void *encoded, size_t length,
                                const struct message_digest *digest,
                                const struct message_digest *head, struct sov_errbuf *err)
{
    struct message entry;
    struct sov_errbuf why = {""};
    if (verifier->result.wrong != 0)
        return sov_fail(err, SOV_ERR_INVALID, "the log was found wrong before");
    strbuf_clear(&verifier->bytes);
    if (!strbuf_append(&verifier->bytes, encoded, length)) {
        verifier->bytes.failed = false;
        return sov_fail(err, SOV_ERR_NOMEM, "no memory for a log entry of %zu bytes", length);
    }
    enum sov_error error = read_entry(verifier, sequence, digest, &entry, &why);
    if (error == SOV_OK) error = add_jobs(verifier, &entry, &why);
    if (error == SOV_OK) error = follow(verifier, &entry, head, &why);
    if (error != SOV_OK) {
        /* Its own signatures say nothing when it is wrong in another way. */
        while (verifier->job_count > 0 &&
               verifier->jobs[verifier->job_count - 1].sequence == sequence)
            verifier->job_count--;
        if (verifier->entry_count > 0 &&
            verifier->entries[verifier->entry_count - 1].sequence == sequence)
            verifier->entry_count--;
        return wrong(verifier, sequence, error, why.message, err);
    }
    return verifier->entry_count == FED_VERIFY_BATCH ? check_jobs(verifier, err) : SOV_OK;
}

enum sov_error fed_verifier_broken(struct fed_verifier *verifier, uint64_t sequence,
                                   const char *problem, struct sov_errbuf *err)
{
    return wrong(verifier, sequence, SOV_ERR_FORMAT, problem, err);
}

enum sov_error fed_verifier_finish(struct fed_verifier *verifier, struct sov_errbuf *err)
{
    return check_jobs(verifier, err);
}
