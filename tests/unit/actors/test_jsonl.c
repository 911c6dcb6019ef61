/* test_jsonl.c - loading rows: keys, kinds of values, slices, and errors that name the place. */
#include <unistd.h>

#include "actors/dataset/jsonl.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "tests/support/test.h"

static const opd_jsonl_keys KEYS = {.prompt = "prompt", .label = "label"};

static opd_err parse(const char *text, const opd_jsonl_keys *keys, opd_jsonl **out) {
    return opd_jsonl_parse(NULL, "data.jsonl", text, strlen(text), keys, out);
}

TEST(strings_numbers_and_escapes) {
    opd_jsonl *set;
    CHECK_OK(parse("{\"prompt\":\"a\\n\\u00e9\\/\",\"label\":43.0}\n"
                   "\n  \r\n"
                   "{\"label\":\"x\",\"extra\":{\"deep\":[1,2,{}]},\"prompt\":\"b\"}\r\n"
                   "{\"prompt\":\"c\",\"label\":true}",
                   &KEYS, &set));
    CHECK_INT(set->count, 3);
    CHECK_STR(set->rows[0].prompt, "a\n\xC3\xA9/");
    CHECK_STR(set->rows[0].label, "43.0");
    CHECK_STR(set->rows[1].label, "x");
    CHECK_INT(set->rows[1].line, 4);
    CHECK_STR(set->rows[2].label, "true");
    CHECK(set->rows[0].response == NULL);
    opd_jsonl_destroy(set);
    opd_jsonl_destroy(NULL);
}

TEST(keys_may_be_paths_and_serve_twice) {
    opd_jsonl_keys keys = {.prompt = "meta.q.text", .label = "answer", .response = "answer"};
    opd_jsonl *set;
    CHECK_OK(parse("{\"meta\":{\"q\":{\"text\":\"why\"}},\"answer\":\"because\"}\n"
                   "{\"meta.q.text\":\"plain\",\"meta\":1,\"answer\":\"b\"}\n",
                   &keys, &set));
    CHECK_STR(set->rows[0].prompt, "why");
    CHECK_STR(set->rows[0].label, "because");
    CHECK_STR(set->rows[0].response, "because");
    CHECK_STR(set->rows[1].prompt, "plain");
    opd_jsonl_destroy(set);
}

TEST(a_source_may_be_missing_but_not_be_data) {
    opd_jsonl_keys keys = {.prompt = "prompt", .source = "meta.kind"};
    opd_jsonl *set;
    char line[512], long_source[OPD_JSONL_SOURCE_MAX + 2] = {0};
    CHECK_OK(parse("{\"prompt\":\"a\",\"meta\":{\"kind\":\"math\"}}\n{\"prompt\":\"b\"}\n"
                   "{\"prompt\":\"c\",\"meta\":{\"kind\":7}}\n{\"prompt\":\"d\",\"meta.kind\":true}\n"
                   "{\"prompt\":\"e\",\"meta\":{\"kind\":null}}", &keys, &set));
    static const char *const want[] = {"math", "", "7", "true", ""};
    for (size_t i = 0; i < set->count; i++) CHECK_STR(set->rows[i].source, want[i]);
    CHECK_INT(set->count, 5);
    opd_jsonl_destroy(set);
    CHECK_OK(parse("{\"prompt\":\"a\",\"label\":1,\"meta\":{\"kind\":1}}", &KEYS, &set));
    CHECK_STR(set->rows[0].source, ""); /* nobody asked */
    opd_jsonl_destroy(set);
    CHECK_ERR(parse("{\"prompt\":\"a\",\"meta\":{\"kind\":[]}}", &keys, &set), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), "meta.kind");
    memset(long_source, 's', OPD_JSONL_SOURCE_MAX);
    for (int more = 0; more < 2; more++) {
        long_source[OPD_JSONL_SOURCE_MAX] = more ? 's' : '\0';
        (void)snprintf(line, sizeof line, "{\"prompt\":\"a\",\"meta\":{\"kind\":\"%s\"}}", long_source);
        CHECK_INT(parse(line, &keys, &set), more ? OPD_ERR_INVALID : OPD_OK);
        if (!more) opd_jsonl_destroy(set);
    }
    CHECK_CONTAINS(opd_err_context(), "192 bytes, the most is 191");
}

TEST(the_byte_order_mark_is_no_text) {
    opd_jsonl *set;
    CHECK_OK(parse("\xEF\xBB\xBF{\"prompt\":\"a\",\"label\":1}", &KEYS, &set));
    CHECK_STR(set->rows[0].prompt, "a");
    opd_jsonl_destroy(set);
}

static void refuse(const char *text, opd_err want, const char *place, const char *what) {
    opd_jsonl *set = NULL;
    CHECK_ERR(parse(text, &KEYS, &set), want);
    CHECK_CONTAINS(opd_err_context(), place);
    CHECK_CONTAINS(opd_err_context(), what);
    CHECK(set == NULL);
}

#define GOOD "{\"prompt\":\"a\",\"label\":1}\n"

TEST(errors_name_file_line_and_key) {
    refuse(GOOD "{\"prompt\":\"b\",\"label\":2\n", OPD_ERR_PARSE, "data.jsonl:2", "not valid JSON");
    refuse(GOOD "{\"prompt\":\"b\",\"label\":2} x", OPD_ERR_PARSE, "data.jsonl:2", "JSON");
    refuse(GOOD "\n{\"prompt\":\"b\"}", OPD_ERR_INVALID, "data.jsonl:3", "\"label\"");
    refuse("{\"prompt\":[1],\"label\":2}", OPD_ERR_INVALID, "data.jsonl:1", "\"prompt\"");
    refuse("{\"prompt\":null,\"label\":2}", OPD_ERR_INVALID, "data.jsonl:1", "\"prompt\"");
    refuse("{\"prompt\":\"\",\"label\":2}", OPD_ERR_INVALID, "data.jsonl:1", "empty");
    refuse("{\"prompt\":\"a\\u0000b\",\"label\":2}", OPD_ERR_INVALID, "data.jsonl:1", "NUL");
    refuse("[1,2]\n", OPD_ERR_PARSE, "data.jsonl:1", "object");
    refuse("\n\n", OPD_ERR_INVALID, "data.jsonl", "no rows");
    refuse("", OPD_ERR_INVALID, "data.jsonl", "no rows");
    refuse(GOOD "{\"prompt\":\"\xff\",\"label\":2}", OPD_ERR_PARSE, "data.jsonl:2", "JSON");
}

TEST(every_cut_of_a_file_is_read_or_refused) {
    static const char TEXT[] = GOOD "{\"prompt\":\"b\\u00e9\",\"x\":{\"y\":[1]},\"label\":\"2\"}";
    for (size_t size = 0; size < sizeof TEXT; size++) {
        char *copy = malloc(size + 1); /* exact size: a read past it shows */
        memcpy(copy, TEXT, size);
        opd_jsonl *set = NULL;
        opd_err err = opd_jsonl_parse(NULL, "cut", copy, size, &KEYS, &set);
        CHECK((err == OPD_OK) == (set != NULL));
        if (size < sizeof GOOD - 2) CHECK(err != OPD_OK);
        opd_jsonl_destroy(set);
        free(copy);
    }
}

static opd_jsonl *load_slice(const char *path, const char *slice) {
    char name[96];
    opd_jsonl *set = NULL;
    (void)snprintf(name, sizeof name, "%s%s", path, slice);
    CHECK_OK(opd_jsonl_load(NULL, name, &KEYS, &set));
    return set;
}

TEST(slices_choose_rows) {
    char path[64], name[96];
    (void)snprintf(path, sizeof path, "slice-%d.jsonl", (int)getpid());
    static const char TEXT[] = "{\"prompt\":\"0\",\"label\":0}\n\n{\"prompt\":\"1\",\"label\":1}\n"
                               "{\"prompt\":\"2\",\"label\":2}\n{\"prompt\":\"3\",\"label\":3}\n";
    CHECK_OK(opd_file_write_atomic(path, TEXT, strlen(TEXT)));
    static const struct { const char *slice, *first; size_t count; } CASES[] = {
        {"", "0", 4}, {"@[1:3]", "1", 2}, {"@[:2]", "0", 2}, {"@[3:]", "3", 1},
        {"@[2:99]", "2", 2}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        opd_jsonl *set = load_slice(path, CASES[i].slice);
        CHECK_INT(set->count, CASES[i].count);
        CHECK_STR(set->rows[0].prompt, CASES[i].first);
        CHECK_STR(set->path, path);
        opd_jsonl_destroy(set);
    }
    static const char *const BAD[] = {"@[2:1]", "@[2]", "@[a:b]", "@[1:2:3]", "@[-1:2]",
                                      "@[99999999999999999999:]"};
    opd_jsonl *set;
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        (void)snprintf(name, sizeof name, "%s%s", path, BAD[i]);
        CHECK_ERR(opd_jsonl_load(NULL, name, &KEYS, &set), OPD_ERR_PARSE);
    }
    (void)snprintf(name, sizeof name, "%s@[4:9]", path);
    CHECK_ERR(opd_jsonl_load(NULL, name, &KEYS, &set), OPD_ERR_INVALID);
    CHECK_INT(unlink(path), 0);
    CHECK_ERR(opd_jsonl_load(NULL, path, &KEYS, &set), OPD_ERR_NOT_FOUND);
}

TEST(shared_and_repeated_prompts_are_found) {
    opd_jsonl *a, *b;
    CHECK_OK(parse(GOOD "{\"prompt\":\"b\",\"label\":2}\n{\"prompt\":\"a\",\"label\":3}", &KEYS,
                   &a));
    CHECK_OK(parse("{\"prompt\":\"c\",\"label\":2}\n{\"prompt\":\"b\",\"label\":3}", &KEYS, &b));
    CHECK_ERR(opd_jsonl_check_distinct(NULL, a), OPD_ERR_MISMATCH);
    CHECK_CONTAINS(opd_err_context(), "data.jsonl:3: the prompt of line 1");
    CHECK_OK(opd_jsonl_check_distinct(NULL, b));
    CHECK_ERR(opd_jsonl_check_disjoint(NULL, a, b), OPD_ERR_MISMATCH);
    CHECK_CONTAINS(opd_err_context(), "data.jsonl:2: this prompt is also in data.jsonl:2");
    opd_jsonl_destroy(b);
    CHECK_OK(parse("{\"prompt\":\"c\",\"label\":2}", &KEYS, &b));
    CHECK_OK(opd_jsonl_check_disjoint(NULL, a, b));
    opd_jsonl_destroy(a);
    opd_jsonl_destroy(b);
}

/* An allocator whose n-th block fails: every path of an error frees what it had. */
static void *failing_resize(void *context, void *ptr, size_t size_bytes) {
    int *left = context;
    if (size_bytes == 0) {
        free(ptr);
        return NULL;
    }
    return (*left)-- > 0 ? realloc(ptr, size_bytes) : NULL;
}

TEST(running_out_of_memory_is_an_error) {
    static const char TEXT[] = GOOD "{\"prompt\":\"b\",\"label\":2}";
    for (int blocks = 0;; blocks++) {
        int left = blocks;
        opd_alloc alloc = {failing_resize, &left};
        opd_jsonl *set = NULL;
        opd_err err = opd_jsonl_parse(&alloc, "m", TEXT, strlen(TEXT), &KEYS, &set);
        if (err == OPD_OK) err = opd_jsonl_check_disjoint(&alloc, set, set);
        opd_jsonl_destroy(set);
        if (err == OPD_ERR_MISMATCH) { /* memory sufficed: a set meets itself */
            CHECK(blocks >= 4);
            return;
        }
        CHECK_ERR(err, OPD_ERR_NOMEM);
    }
}

/* ---- prompts of several keys ---- */

static opd_err parse_template(const char *template_text, const char *line, opd_jsonl **out) {
    opd_jsonl_keys keys = {.template_text = template_text};
    return parse(line, &keys, out);
}

TEST(a_template_joins_keys_and_text) {
    static const struct { const char *text, *want; } CASES[] = {
        {"{a} {b}", "x y\"z 4.50"}, {"{b}{b}", "4.504.50"}, {"Q: {m.n}\\nA:", "Q: \xc3\xa4\nA:"},
        {"{{{a}}} \\\\ \\t|", "{x y\"z} \\ \t|"}, {"{c.d}", "dot"}};
    opd_jsonl *set;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CHECK_OK(parse_template(CASES[i].text, "{\"a\":\"x y\\\"z\",\"b\":4.50,\"m\":{\"n\":\"\\u00e4\"},"
                                "\"c.d\":\"dot\"}\n", &set));
        CHECK_STR(set->rows[0].prompt, CASES[i].want);
        CHECK(set->rows[0].segments == NULL);
        opd_jsonl_destroy(set);
    }
}

TEST(a_template_that_is_none_is_refused) {
    static const struct { const char *text, *why; } CASES[] = {
        {"{a", "at byte 0"}, {"x{}", "at byte 1"}, {"x}", "at byte 1"}, {"{a}\\q", "at byte 3"},
        {"{a}\\", "at byte 3"}, {"{a{b}}", "at byte 0"}, {"plain", "names no key"}};
    opd_jsonl *set;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CHECK_ERR(parse_template(CASES[i].text, "{\"a\":1}\n", &set), OPD_ERR_INVALID);
        CHECK_CONTAINS(opd_err_context(), CASES[i].why);
    }
    CHECK_ERR(parse_template("{a} {b}", "{\"a\":1}\n", &set), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), "data.jsonl:1: there is no key \"b\"");
}

/* ---- conversations ---- */

#define SAYS(role, text) "{\"role\":\"" role "\",\"content\":\"" text "\"}"

/* Segments as one text: learnt ones in [], EOS as $. */
static void show(const opd_row *row, uint32_t count, char *out) {
    *out = '\0';
    for (uint32_t i = 0; i < count; i++) {
        const opd_segment *s = &row->segments[i];
        sprintf(out + strlen(out), "%s%s%s%s", s->learn ? "[" : "", s->text, s->ends ? "$" : "",
                s->learn ? "]" : "");
    }
}

/* A second prompt is read as the first, in each of its forms; other keys are as without it. */
TEST(a_privileged_prompt_is_read_beside_the_prompt) {
    static const char text[] = "{\"q\":\"2+2?\",\"a\":\"4\",\"talk\":[{\"role\":\"user\",\"content\":\"hm\"}]}\n";
    const struct { opd_jsonl_keys keys; const char *want; uint32_t segments; } cases[] = {
        {{.prompt = "q", .label = "a", .privileged = "a"}, "4", 0},
        {{.prompt = "q", .label = "a", .privileged_template = "{a} is it: {q}"}, "4 is it: 2+2?", 0},
        {{.prompt = "q", .label = "a", .privileged_messages = "talk"}, "hm", 3},
        {{.template_text = "{q}", .label = "a", .privileged_template = "{q}{q}{q}{q}{a}"}, "2+2?2+2?2+2?2+2?4", 0}};
    for (size_t i = 0; i < OPD_COUNTOF(cases); i++) {
        opd_jsonl *file;
        CHECK_OK(opd_jsonl_parse(NULL, "x", text, strlen(text), &cases[i].keys, &file));
        const opd_row *row = &file->rows[0];
        CHECK_STR(row->prompt, "2+2?");
        CHECK_STR(row->label, "4");
        CHECK_STR(row->privileged, cases[i].want);
        CHECK_INT(row->privileged_segment_count, cases[i].segments);
        CHECK(row->segments == NULL);
        opd_jsonl_destroy(file);
    }
    opd_jsonl *file;
    opd_jsonl_keys keys = {.prompt = "q", .privileged = "hint"};
    CHECK_ERR(opd_jsonl_parse(NULL, "x", text, strlen(text), &keys, &file), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), "x:1: there is no key \"hint\"");
    keys = (opd_jsonl_keys){.prompt = "q", .privileged_template = "hint"};
    CHECK_ERR(opd_jsonl_parse(NULL, "x", text, strlen(text), &keys, &file), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), "names no key");
}

TEST(a_conversation_is_segments) {
    static const struct { const char *line, *roles, *whole, *prompt; uint32_t in_prompt; } CASES[] = {
        {"{\"m\":[" SAYS("user", "2+2") "," SAYS("assistant", "4") "]}", "assistant",
         "user: 2+2\nassistant: [4$]", "2+2", 3},
        {"{\"m\":[" SAYS("system", "short") "," SAYS("user", "a\\nb") "]}", NULL,
         "system: short\nuser: a\nb\nassistant: ", "short\na\nb", 5},
        {"{\"m\":[" SAYS("user", "a") "," SAYS("assistant", "b") "," SAYS("user", "c") ","
         SAYS("assistant", "d") "]}", "assistant, user",
         "user: [a]\nassistant: [b$]\nuser: [c]\nassistant: [d$]", "a\nb\nc", 7},
        {"{\"m\":[{\"content\":\"x\",\"name\":\"n\",\"role\":\"user\"}]}", NULL, "user: x\nassistant: ", "x", 3}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        opd_jsonl_keys keys = {.messages = "m", .roles = CASES[i].roles};
        opd_jsonl *set;
        char text[256];
        CHECK_OK(parse(CASES[i].line, &keys, &set));
        const opd_row *row = &set->rows[0];
        show(row, row->segment_count, text);
        CHECK_STR(text, CASES[i].whole);
        CHECK_STR(row->prompt, CASES[i].prompt);
        CHECK_INT(row->prompt_segments, CASES[i].in_prompt);
        opd_jsonl_destroy(set);
    }
}

TEST(a_conversation_that_is_none_is_refused) {
    static const struct { const char *line, *why; } CASES[] = {
        {"{\"m\":\"hello\"}", "is not an array of messages"}, {"{\"n\":[]}", "is not an array of messages"},
        {"{\"m\":[]}", "has no message"}, {"{\"m\":[{\"content\":\"x\"}]}", "without a role"},
        {"{\"m\":[" SAYS("", "x") "]}", "without a role"}, {"{\"m\":[7]}", "without a role"},
        {"{\"m\":[{\"role\":\"user\",\"content\":[1]}]}", "content is not one text"},
        {"{\"m\":[" SAYS("user", "a\\u0000b") "]}", "NUL"},
        {"{\"m\":[" SAYS("user", "x") "]}", "no message of a role that SFT learns"},
        {"{\"m\":[" SAYS("assistant", "x") "]}", "is empty"}};
    opd_jsonl_keys keys = {.messages = "m", .roles = "assistant"};
    opd_jsonl *set;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        CHECK_ERR(parse(CASES[i].line, &keys, &set), OPD_ERR_INVALID);
        CHECK_CONTAINS(opd_err_context(), CASES[i].why);
    }
}

/* The blocks are as large as the worst line needs: the sanitizers watch. */
TEST(the_shortest_messages_fit) {
    opd_jsonl_keys keys = {.messages = "m"};
    char line[4096];
    opd_jsonl *set;
    for (int count = 1; count < 100; count++) {
        size_t at = (size_t)sprintf(line, "{\"m\":[");
        for (int i = 0; i < count; i++)
            at += (size_t)sprintf(line + at, "%s" "{\"role\":\"u\",\"content\":\"%s\"}", i > 0 ? "," : "", i > 0 ? "" : "x");
        sprintf(line + at, "]}");
        CHECK_OK(parse(line, &keys, &set));
        CHECK_INT(set->rows[0].segment_count, 2 * count + 1);
        opd_jsonl_destroy(set);
    }
}
