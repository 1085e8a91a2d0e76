/* SPDX-License-Identifier: Apache-2.0 */
/* /v1/ihsan/project from body to answer, and over HTTP while no model is there. */
#include "tests/server_fixture.h"

#include <math.h>

#include "server/api.h"

static bool project(const char *body, struct strbuf *out, struct api_error *err)
{
    struct projector p;
    projector_init(&p, kern_isa_best());
    strbuf_clear(out);
    memset(err, 0, sizeof *err);
    return api_project(&p, body, strlen(body), out, err);
}

static json_t *answer(const char *body)
{
    static struct strbuf out;
    struct api_error err;
    if (!project(body, &out, &err)) fail_msg("%s", err.message);
    return parse_json(out.data, out.length);
}

static double number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value)) fail_msg("no number '%s'", name);
    return json_number_value(value);
}

static void refused(const char *body, const char *param, const char *says)
{
    static struct strbuf out;
    struct api_error err;
    if (project(body, &out, &err)) fail_msg("accepted: %s", body);
    assert_int_equal(err.status, 400);
    assert_string_equal(err.param, param);
    if (strstr(err.message, says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.message, says);
}

#define NAMED                                                                                      \
    "{\"truthfulness\":0.9,\"trustworthiness\":0.8,\"justice\":0.9,\"excellence\":0.7,\"wisdom\":" \
    "0.8,\"compassion\":0.9,\"patience\":0.6,\"gratitude\":0.7}"
#define LISTED "[0.9,0.8,0.9,0.7,0.8,0.9,0.6,0.7]"

static void test_scores_by_name_and_in_order(void **state)
{
    (void)state;
    json_t *named = answer("{\"scores\":" NAMED "}"), *listed = answer("{\"scores\":" LISTED "}");
    assert_true(json_equal(named, listed));
    const json_t *ntu = json_object_get(named, "ntu");
    assert_true(number(ntu, "belief") == 0.88); /* the shortest that gives the float */
    assert_true(fabs(number(ntu, "entropy") - 0.195) < 1e-6);
    assert_true(fabs(number(ntu, "potential") - 0.66) < 1e-6);
    json_decref(named);
    json_decref(listed);
}

static void test_a_batch_is_its_elements(void **state)
{
    (void)state;
    json_t *one = answer("{\"scores\":" LISTED "}");
    json_t *many = answer("{\"batch\":[" NAMED "," LISTED ",[0,0,0,0,0,0,0,0]]}");
    const json_t *data = json_object_get(many, "data");
    assert_int_equal(json_array_size(data), 3);
    for (size_t i = 0; i < 2; i++)
        assert_true(json_equal(json_array_get(data, i), json_object_get(one, "ntu")));
    assert_true(number(json_array_get(data, 2), "belief") == 0);
    json_decref(one);
    json_decref(many);
}

static void test_back_to_scores(void **state)
{
    (void)state;
    json_t *there = answer("{\"scores\":" LISTED "}");
    double belief = number(json_object_get(there, "ntu"), "belief");
    double entropy = number(json_object_get(there, "ntu"), "entropy");
    double potential = number(json_object_get(there, "ntu"), "potential");
    char body[512];
    snprintf(body, sizeof body,
             "{\"ntu\":{\"belief\":%.17g,\"entropy\":%.17g,\"potential\":%.17g},\"prior\":" NAMED
             "}",
             belief, entropy, potential);
    json_t *back = answer(body);
    assert_true(json_is_true(json_object_get(back, "within_range")));
    const json_t *scores = json_object_get(back, "scores");
    assert_true(fabs(number(scores, "truthfulness") - 0.9) < 1e-5);
    assert_true(fabs(number(scores, "gratitude") - 0.7) < 1e-5);
    json_t *far = answer("{\"ntu\":{\"belief\":1,\"entropy\":5,\"potential\":1}}");
    assert_true(json_is_false(json_object_get(far, "within_range")));
    json_decref(there);
    json_decref(back);
    json_decref(far);
}

static void test_what_is_wrong_is_named(void **state)
{
    (void)state;
    refused("", "", "empty");
    refused("[]", "", "object");
    refused("{}", "scores", "exactly one");
    refused("{\"scores\":" LISTED ",\"batch\":[]}", "scores", "exactly one");
    refused("{\"scores\":" LISTED ",\"score\":1}", "score", "Unknown field 'score'");
    refused("{\"scores\":" LISTED ",\"prior\":" LISTED "}", "prior", "'ntu'");
    refused("{\"scores\":7}", "scores", "an integer");
    refused("{\"scores\":[1,1,1]}", "scores", "8 numbers, not 3");
    refused("{\"scores\":[1,1,1,1,1,1,1,1.0001]}", "scores[7]", "from 0 to 1");
    refused("{\"scores\":[-0.1,1,1,1,1,1,1,1]}", "scores[0]", "from 0 to 1");
    refused("{\"scores\":[1,1,1,1,\"1\",1,1,1]}", "scores[4]", "a string");
    refused("{\"scores\":[1,1,1,1,null,1,1,1]}", "scores[4]", "null");
    refused("{\"scores\":{\"truthfulness\":1}}", "scores.trustworthiness", "not missing");
    refused("{\"scores\":{\"truthfulnes\":1}}", "scores.truthfulnes", "Unknown field");
    refused("{\"scores\":[1,1,1,1,NaN,1,1,1]}", "", "not valid JSON");
    refused("{\"batch\":[]}", "batch", "1 to 65536");
    refused("{\"batch\":{}}", "batch", "an object");
    refused("{\"batch\":[" LISTED "," LISTED ",[2,0,0,0,0,0,0,0]]}", "batch[2][0]", "from 0 to 1");
    refused("{\"batch\":[" LISTED ",{\"wisdom\":1}]}", "batch[1].truthfulness", "not missing");
    refused("{\"ntu\":[1,2,3]}", "ntu", "an array");
    refused("{\"ntu\":{\"belief\":1,\"entropy\":1}}", "ntu.potential", "not missing");
    refused("{\"ntu\":{\"belief\":1,\"entropy\":6,\"potential\":0}}", "ntu.entropy", "from 0 to 5");
    refused("{\"ntu\":{\"belief\":1,\"entropy\":1,\"potential\":0,\"x\":0}}", "ntu.x", "Unknown");
}

static void test_the_largest_batch(void **state)
{
    (void)state;
    struct strbuf body = {0}, out = {0};
    struct api_error err;
    strbuf_puts(&body, "{\"batch\":[");
    for (int i = 0; i < API_PROJECT_BATCH_MAX; i++) strbuf_puts(&body, i > 0 ? "," LISTED : LISTED);
    strbuf_puts(&body, "]}");
    assert_false(strbuf_failed(&body));
    assert_true(project(body.data, &out, &err));
    body.length -= 2;
    strbuf_puts(&body, "," LISTED "]}");
    assert_false(project(body.data, &out, &err));
    assert_non_null(strstr(err.message, "65537"));
    strbuf_free(&body);
    strbuf_free(&out);
}

static void test_every_lack_of_memory(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{\"batch\":[" LISTED "," NAMED "]}",
                                         "{\"scores\":" NAMED "}",
                                         "{\"ntu\":{\"belief\":1,\"entropy\":1,\"potential\":0}}"};
    for (int b = 0; b < 3; b++)
        for (long i = 0;; i++) {
            struct strbuf out = {0};
            struct api_error err;
            (void)sov_mem_fail_after(i, true);
            bool ok = project(bodies[b], &out, &err);
            (void)sov_mem_fail_after(-1, false);
            strbuf_free(&out);
            if (ok) break;
            assert_int_equal(err.status, 503);
            assert_true(i < 10000);
        }
}

static void test_over_http_without_a_model(void **state)
{
    (void)state;
    struct server_options o;
    struct server *server;
    struct sov_errbuf err;
    struct projector zero;
    float weights[PROJECTION_OUTPUTS][IHSAN_DIMENSIONS] = {{0}}, bias[] = {0.25f, 0, 1};
    assert_int_equal(projector_init_weights(&zero, kern_isa_best(), weights, bias, &err), SOV_OK);
    for (int own = 0; own < 2; own++) {
        server_options_default(&o);
        o.port = 0;
        o.projector = own != 0 ? &zero : NULL;
        if (server_start(&o, &server, &err) != SOV_OK) fail_msg("%s", err.message);
        int port = server_port(server);
        json_t *r = post(port, "/v1/ihsan/project", "{\"scores\":" LISTED "}", 200);
        double belief = number(json_object_get(r, "ntu"), "belief");
        assert_true(fabs(belief - (own != 0 ? 0.25 : 0.88)) < 1e-6);
        json_decref(r);
        r = post(port, "/v1/ihsan/project", "{\"scores\":[2,2,2,2,2,2,2,2]}", 400);
        assert_string_equal(
            json_string_value(json_object_get(json_object_get(r, "error"), "param")), "scores[0]");
        json_decref(r);
        struct response get = http(port, "GET", "/v1/ihsan/project", "", NULL);
        assert_int_equal(get.status, 405);
        response_free(&get);
        assert_true(metric(port, "sovereign_http_requests_total{route=\"/v1/ihsan/project\","
                                 "status=\"200\"}") == 1);
        server_free(server);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores_by_name_and_in_order),
        cmocka_unit_test(test_a_batch_is_its_elements),
        cmocka_unit_test(test_back_to_scores),
        cmocka_unit_test(test_what_is_wrong_is_named),
        cmocka_unit_test(test_the_largest_batch),
        cmocka_unit_test(test_every_lack_of_memory),
        cmocka_unit_test(test_over_http_without_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
