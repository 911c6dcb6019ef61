/* test_config_route.c - several teachers in a configuration: who scores what, and what is refused. */
#include "tests/support/test.h"
#include "tests/unit/core/config_text.h"

#define HEAD "model: {path: m}\ndata: {path: d}\nrollout: {samples_per_prompt: 2}\ntrain: {steps: 1}\n"
#define OPD_PART(more) "opd: {enabled: true, type: sglang" more "}\n"
#define TEACHERS(a, b, c)                                                                      \
    "teachers:\n  a: {url: \"http://h:1\"" a "}\n  b: {url: \"http://h:2\"" b                  \
    "}\n  c: {url: \"http://h:3\"" c "}\n"

static const char *const MIXED = HEAD OPD_PART(", teacher: [c, a], teacher_key: meta.source")
    TEACHERS(", serves: 'math, code'", ", serves: [math, the web], weight: 0.5", "");

static void check_route(const opd_config_stage *s, const char *source, const char *names, bool known) {
    uint8_t places[OPD_CONFIG_TEACHERS_MAX];
    char got[64] = "";
    bool was_known = !known;
    size_t count = opd_config_route(s, source, places, &was_known);
    for (size_t i = 0; i < count; i++) strcat(got, s->teachers[places[i]].name);
    CHECK_STR(got, names);
    CHECK(was_known == known);
}

TEST(a_value_has_its_teachers) {
    opd_config *config = config_get(MIXED, NULL);
    const opd_config_stage *s = &config->stages[0];
    CHECK_STR(s->opd.teacher, "c, a");
    CHECK_STR(s->opd.teacher_key, "meta.source");
    CHECK(s->teachers[1].weight == 0.5);
    CHECK_INT(s->teachers[0].chunk_tokens, -1);
    check_route(s, "math", "ab", true);
    check_route(s, "code", "a", true);
    check_route(s, "the web", "b", true);
    check_route(s, "c", "c", true); /* its own name */
    check_route(s, "", "ca", true);
    check_route(s, "poems", "ca", false);
    check_route(s, "a", "ca", false); /* serves says what it serves */
    opd_config_destroy(config);
}

TEST(without_a_key_the_value_says_nothing) {
    opd_config *config = config_get(HEAD OPD_PART(", teacher: b") TEACHERS("", "", ""), NULL);
    check_route(&config->stages[0], "a", "b", true);
    opd_config_destroy(config);
}

TEST(who_is_used) {
    opd_config *config = config_get(HEAD OPD_PART(", teacher: a")
                                    TEACHERS(", fallback: c", "", ", fallback: a"), NULL);
    const opd_config_stage *s = &config->stages[0];
    CHECK(opd_config_teacher_used(s, 0));
    CHECK(!opd_config_teacher_used(s, 1));
    CHECK(opd_config_teacher_used(s, 2)); /* the fallbacks are a circle: no matter */
    opd_config_destroy(config);
    config = config_get(MIXED, NULL);
    for (size_t i = 0; i < 3; i++) CHECK(opd_config_teacher_used(&config->stages[0], i));
    opd_config_destroy(config);
}

/* Without a key the names of the data's sources say it, and those that nobody serves are no surprise. */
TEST(sources_have_their_teachers) {
    static const char TEXT[] =
        "model: {path: m}\ndata:\n  sources:\n    math: {path: x, weight: 2}\n    a: {path: y}\n"
        "    poems: {path: z}\nrollout: {samples_per_prompt: 2}\ntrain: {steps: 1}\n"
        OPD_PART(", teacher: c");
    char text[2048];
    snprintf(text, sizeof text, "%s%s", TEXT, TEACHERS("", ", serves: math", ""));
    opd_config *config = config_get(text, NULL);
    const opd_config_stage *s = &config->stages[0];
    check_route(s, "math", "b", true);
    check_route(s, "a", "a", true);
    check_route(s, "poems", "c", true);
    for (size_t i = 0; i < 3; i++) CHECK(opd_config_teacher_used(s, i));
    opd_config_destroy(config);
    snprintf(text, sizeof text, "%s%s", TEXT, TEACHERS(", serves: nothing", "", ", fallback: b"));
    config = config_get(text, NULL);
    CHECK(!opd_config_teacher_used(&config->stages[0], 0));
    CHECK(opd_config_teacher_used(&config->stages[0], 1)); /* as the fallback */
    opd_config_destroy(config);
}

/* A teacher that is not asked needs no server. */
TEST(an_idle_teacher_needs_nothing) {
    opd_config_destroy(config_get(HEAD OPD_PART(", teacher: a")
                                  "teachers: {a: {url: \"http://h:1\"}, b: {}}\n", NULL));
    FAILS(HEAD OPD_PART(", teacher: a, teacher_key: k")
          "teachers: {a: {url: \"http://h:1\"}, b: {}}\n",
          "t.yaml:1:1: teachers.b.url: opd.type sglang needs a server; give teachers.NAME.url, "
          "teachers.NAME.path or --rm-url");
}

TEST(what_is_refused) {
    FAILS(HEAD OPD_PART(", teacher: 'a, bb'") TEACHERS("", "", ""),
          "t.yaml:5:45: opd.teacher: there is no teacher 'bb'; the nearest is b");
    FAILS(HEAD OPD_PART(", teacher: 'a, a'") TEACHERS("", "", ""),
          "t.yaml:5:45: opd.teacher: 'a' stands there twice; give it a teachers.a.weight instead");
    FAILS(HEAD OPD_PART(", teacher: a") TEACHERS(", fallback: d", "", ""),
          "t.yaml:7:36: teachers.a.fallback: there is no teacher 'd'; the nearest is a");
    FAILS(HEAD OPD_PART(", teacher: a") TEACHERS(", fallback: a", "", ""),
          "t.yaml:7:36: teachers.a.fallback: names the teacher itself");
    FAILS(HEAD OPD_PART(", teacher: a") TEACHERS(", serves: x", "", ""),
          "t.yaml:7:34: teachers.a.serves: means values of opd.teacher_key or names of "
          "data.sources, and neither is given");
    FAILS(HEAD OPD_PART(", teacher: a, teacher_key: k") TEACHERS(", serves: [x, y, x]", "", ""),
          "t.yaml:7:34: teachers.a.serves: 'x' stands there twice");
    FAILS(HEAD OPD_PART(", teacher: a") TEACHERS(", weight: 0", "", ""),
          "t.yaml:7:34: teachers.a.weight: 0 is too small; it must be above 0");
    FAILS(HEAD OPD_PART(", teacher: a") TEACHERS(", weight: .inf", "", ""),
          "t.yaml:7:34: teachers.a.weight: the number must be finite");
    FAILS(HEAD OPD_PART(", teacher: a") TEACHERS(", max_inflight: 4097", "", ""),
          "t.yaml:7:40: teachers.a.max_inflight: 4097 is too large; it must be at most 4096 requests");
    FAILS(HEAD OPD_PART(", teacher: 'a, b'") TEACHERS(", max_inflight: 4000", ", max_inflight: 97", ""),
          "t.yaml:8:40: teachers.b.max_inflight: the teachers may be asked 4097 questions at the same "
          "time, and 4096 are possible; lower it, or give opd.teacher_inflight_max");
    FAILS(HEAD OPD_PART(", teacher: a") TEACHERS(", protocol: vllm, chunk_tokens: 64", "", ""),
          "t.yaml:7:56: teachers.a.chunk_tokens: vLLM computes the whole prefix again for each chunk "
          "(its prompt_logprobs skip the prefix cache); leave it out");
    FAILS(HEAD "opd: {enabled: true, type: megatron, teacher: [a, b]}\n"
          "teachers: {a: {path: /tmp}, b: {path: /tmp}}\n",
          "t.yaml:5:28: opd.type: megatron is one teacher in this process, and 2 are used; serve them "
          "(opd.type sglang, teachers.NAME.path or url)");
}
