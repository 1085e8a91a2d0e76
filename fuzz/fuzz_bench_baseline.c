/* SPDX-License-Identifier: Apache-2.0 */
/* Baselines from anyone. What is read can be compared with a run, and written out as JSON and text. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "benchmark/baseline.h"

static void require(bool condition)
{
    if (!condition) abort();
}

static void use(const struct bench_baseline *baseline)
{
    struct bench_report report;
    struct bench_baseline again;
    struct strbuf out = {0};
    require(bench_report_init(&report, NULL) == SOV_OK);
    report.identity = baseline->identity;
    for (int i = 0; i < baseline->count; i++) {
        const struct bench_result *r = &baseline->results[i];
        require(r->kept_count >= 1 && r->kept_count <= BENCH_KEPT_MAX && isfinite(r->summary.mean));
        /* Each comparison draws 4,000 times. */
        if (i < 2) report.results[report.count++] = *r;
    }
    bench_baseline_compare(baseline, "baseline", &report);
    (void)bench_regressions(&report, 10, &out);
    strbuf_clear(&out);
    bench_report_text(&report, &out);
    strbuf_clear(&out);
    bench_report_json(&report, &out);
    require(!strbuf_failed(&out));
    require(bench_baseline_parse(out.data, out.length, &again, NULL) == SOV_OK);
    require(again.count == report.count);
    bench_baseline_free(&again);
    strbuf_free(&out);
    bench_report_free(&report);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bench_baseline baseline;
    struct sov_errbuf err = {""};
    if (bench_baseline_parse((const char *)data, size, &baseline, &err) == SOV_OK)
        use(&baseline);
    else
        require(err.message[0] != '\0');
    bench_baseline_free(&baseline);
    return 0;
}
