/* test_dataset.c - which rows are used and in which order, their ids, and the actor that hands
 * them out: never beyond what is admitted, nothing while held, the same groups after a resume. */
#include "actors/dataset/dataset.h"

#include <math.h>
#include <unistd.h>

#include "actors/dataset/dataset_actor.h"
#include "actors/messages.h"
#include "core/base/check.h"
#include "core/base/file.h"
#include "tests/support/script_actor.h"

enum { ROWS = 7, GROUPS = 24, BATCH = 3 };

static opd_tokenizer *tokenizer;
static char path[32];

static opd_dataset_options options_of(const char *text) {
    memcpy(path, "/tmp/opd-dataset-XXXXXX", 24);
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    CHECK_OK(opd_file_write_atomic(path, text, strlen(text)));
    CHECK_OK(opd_tokenizer_create_bytes(NULL, &tokenizer));
    return (opd_dataset_options){.path = path, .keys = {.prompt = "p", .label = "l", .response = "r"},
                                 .max_len = 100, .seed = 5,
                                 .tokenizer = tokenizer};
}

static void done(opd_dataset *dataset) {
    opd_dataset_close(dataset);
    opd_tokenizer_destroy(tokenizer);
    unlink(path);
}

#define ROW(p) "{\"p\":\"" p "\",\"l\":\"\",\"r\":\"xy\"}\n"
static const char SEVEN[] = ROW("a0") ROW("a1") ROW("a2long") ROW("a3") ROW("a4") ROW("a5longer") ROW("a6");

static const char *prompt_of(const opd_dataset *d, uint64_t group, uint64_t want_epoch) {
    uint64_t epoch;
    const opd_row *row = opd_dataset_row(d, group, &epoch);
    CHECK_INT(epoch, want_epoch);
    return row->prompt;
}

TEST(skip_limit_and_long_prompts_choose_the_rows) {
    opd_dataset_options o = options_of(SEVEN);
    opd_dataset *d;
    o.skip = 1, o.limit = 3, o.max_prompt_len = 3; /* BOS and two bytes */
    CHECK_OK(opd_dataset_open(&o, &d));
    CHECK_INT(d->count, 3);
    CHECK_INT(d->dropped, 1);
    CHECK_INT(d->prompt_max, 3);
    CHECK_INT(d->whole_max, 6); /* with two bytes of response and EOS */
    static const char *const want[] = {"a1", "a3", "a4"};
    for (uint64_t g = 0; g < 9; g++) CHECK_STR(prompt_of(d, g, g / 3), want[g % 3]); /* not shuffled */
    done(d);
}

TEST(rows_without_a_source_are_counted) {
    opd_dataset_options o = options_of("{\"p\":\"a\",\"k\":\"x\"}\n{\"p\":\"b\"}\n{\"p\":\"toolong\"}\n");
    opd_log_memory log;
    opd_dataset *d;
    o.keys.label = o.keys.response = NULL;
    o.keys.source = "k", o.max_prompt_len = 3;
    log_memory_start(&log);
    CHECK_OK(opd_dataset_open(&o, &d));
    opd_log_sink_set(NULL, NULL);
    CHECK_INT(d->unsourced, 1); /* the long one is not used */
    CHECK_CONTAINS(log.text, "1 of 2 rows have no \"k\"");
    done(d);
    o.keys.source = NULL;
}

TEST(epochs_are_fresh_and_groups_need_no_history) {
    opd_dataset_options o = options_of(SEVEN);
    opd_dataset *d, *again;
    o.shuffle = true;
    CHECK_OK(opd_dataset_open(&o, &d));
    CHECK_OK(opd_dataset_open(&o, &again));
    int moved = 0;
    for (uint64_t epoch = 0; epoch < 4; epoch++) {
        unsigned seen = 0;
        for (uint64_t i = 0; i < ROWS; i++) {
            const char *prompt = prompt_of(d, epoch * ROWS + i, epoch);
            seen |= 1u << (prompt[1] - '0');
            moved += epoch > 0 && strcmp(prompt, prompt_of(d, i, 0)) != 0;
        }
        CHECK_INT(seen, (1 << ROWS) - 1);
    }
    CHECK(moved > ROWS);
    CHECK_STR(prompt_of(again, 23, 3), prompt_of(d, 23, 3)); /* asked for first */
    opd_dataset_close(again);
    done(d);
}

TEST(rows_that_cannot_be_are_named) {
    opd_dataset_options o = options_of(SEVEN);
    opd_dataset *d;
    o.max_len = 10; /* BOS, "a5longer", "xy", EOS are 12 */
    CHECK_ERR(opd_dataset_open(&o, &d), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), ":6: this row has 12 tokens and the model takes 10");
    o.max_prompt_len = 7; /* it is left out instead */
    CHECK_OK(opd_dataset_open(&o, &d));
    CHECK_INT(d->count, 6);
    opd_dataset_close(d);
    o.skip = 7;
    CHECK_ERR(opd_dataset_open(&o, &d), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), "no row is left of 7");
    o.skip = 0, o.keys.label = "none";
    CHECK_ERR(opd_dataset_open(&o, &d), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), ":1:");
    done(NULL);
}

TEST(a_privileged_prompt_has_ids_and_bounds_of_its_own) {
    opd_dataset_options o = options_of("{\"p\":\"ab\",\"h\":\"hint\"}\n{\"p\":\"c\",\"h\":\"\"}\n"
                                       "{\"p\":\"d\",\"h\":\"much too long\"}\n");
    opd_log_memory log;
    opd_dataset *d;
    opd_slice slice;
    uint64_t epoch;
    o.keys = (opd_jsonl_keys){.prompt = "p", .privileged_template = "{h}{p}"};
    o.max_privileged_len = 7;
    log_memory_start(&log);
    CHECK_OK(opd_dataset_open(&o, &d));
    opd_log_sink_set(NULL, NULL);
    CHECK_INT(d->count, 2);
    CHECK_INT(d->privileged_max, 7);
    CHECK_INT(d->prompt_max, 3);
    CHECK_CONTAINS(log.text, "1 rows with a prompt (data.max_prompt_len 0) or a privileged one "
                             "(data.max_privileged_len 7)");
    CHECK_CONTAINS(log.text, "in 1 of 2 rows the privileged prompt is the prompt");
    CHECK_OK(opd_dataset_privileged(d, opd_dataset_row(d, 0, &epoch), &slice));
    const int32_t *ids = opd_slice_data(slice);
    CHECK_INT(slice.size_bytes / sizeof *ids, 7);
    CHECK_INT(ids[0], opd_tokenizer_bos(tokenizer));
    CHECK_INT(ids[1] - ids[6], 'h' - 'b');
    opd_buf_release(slice.buf);
    opd_dataset_close(d);
    o.max_privileged_len = 0, o.max_len = 10;
    CHECK_ERR(opd_dataset_open(&o, &d), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), ":3: the privileged prompt of this row has 15 tokens and the model takes 10");
    o.max_len = 100, o.keys.privileged_template = "{p}";
    CHECK_ERR(opd_dataset_open(&o, &d), OPD_ERR_INVALID);
    CHECK_CONTAINS(opd_err_context(), "the privileged prompt is the prompt in every row");
    o.keys.privileged_template = NULL;
    CHECK_OK(opd_dataset_open(&o, &d));
    CHECK_OK(opd_dataset_privileged(d, opd_dataset_row(d, 0, &epoch), &slice));
    CHECK(slice.buf == NULL && d->privileged_max == 0);
    done(d);
}

TEST(ids_are_bos_prompt_response_eos) {
    opd_dataset_options o = options_of(SEVEN);
    opd_dataset *d;
    opd_slice slice;
    uint32_t prompt_len;
    CHECK_OK(opd_dataset_open(&o, &d));
    static const int32_t want[] = {1, 3 + 'a', 3 + '0', 3 + 'x', 3 + 'y', 2};
    for (int response = 0; response < 2; response++) {
        CHECK_OK(opd_dataset_tokens(d, &d->sources[0].rows->rows[0], response, &slice, &prompt_len));
        CHECK_INT(prompt_len, 3);
        CHECK_INT(slice.size_bytes, response ? sizeof want : 12);
        CHECK(memcmp(opd_slice_data(slice), want, slice.size_bytes) == 0);
        opd_buf_release(slice.buf);
    }
    opd_test_alloc memory;
    opd_test_alloc_failing(&memory, 1, true);
    d->alloc = &memory.alloc;
    CHECK_ERR(opd_dataset_tokens(d, &d->sources[0].rows->rows[0], true, &slice, &prompt_len), OPD_ERR_NOMEM);
    d->alloc = NULL;
    done(d);
}

/* ---- conversations ---- */

TEST(a_conversation_is_learnt_where_its_roles_say) {
    static const char CHAT[] =
        "{\"m\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"bc\"},"
        "{\"role\":\"user\",\"content\":\"d\"},{\"role\":\"assistant\",\"content\":\"e\"},"
        "{\"role\":\"user\",\"content\":\"bye\"}]}\n";
    static const char AFTER[] = "user: a\nassistant: bc$\nuser: d\nassistant: e$"; /* bye is cut off */
    static const char MASK[] = "111" "00000000000000000000" "11";
    opd_dataset_options o = options_of(CHAT);
    opd_dataset *d;
    opd_slice tokens, mask;
    uint32_t prompt_len;
    o.keys = (opd_jsonl_keys){.messages = "m", .roles = "assistant"};
    CHECK_OK(opd_dataset_open(&o, &d));
    const opd_row *row = &d->sources[0].rows->rows[0];
    CHECK_OK(opd_dataset_tokens(d, row, true, &tokens, &prompt_len));
    CHECK_OK(opd_dataset_mask(d, row, &mask));
    const int32_t *ids = opd_slice_data(tokens);
    CHECK_INT(tokens.size_bytes / sizeof *ids, sizeof AFTER); /* with BOS, without NUL */
    for (size_t i = 0; i + 1 < sizeof AFTER; i++)
        CHECK_INT(ids[i + 1], AFTER[i] == '$' ? 2 : 3 + AFTER[i]);
    CHECK_INT(prompt_len, 1 + strlen("user: a\nassistant: "));
    CHECK_INT(mask.size_bytes, sizeof AFTER - prompt_len);
    CHECK_INT(mask.size_bytes, sizeof MASK - 1);
    for (size_t i = 0; i < mask.size_bytes; i++)
        CHECK_INT(((const uint8_t *)opd_slice_data(mask))[i], MASK[i] - '0');
    CHECK_INT(d->whole_max, sizeof AFTER);
    opd_buf_release(tokens.buf);
    opd_buf_release(mask.buf);
    CHECK_OK(opd_dataset_tokens(d, row, false, &tokens, &prompt_len)); /* to be answered */
    CHECK_INT(prompt_len, sizeof AFTER + strlen("\nuser: bye\nassistant: "));
    CHECK_INT(tokens.size_bytes / sizeof *ids, prompt_len);
    opd_buf_release(tokens.buf);
    done(d);
}

/* ---- several sources ---- */

TEST(weights_say_how_often_a_source_is_next) {
    static const double WEIGHTS[] = {7, 2, 1};
    opd_mix mix = opd_mix_of(WEIGHTS, 3);
    uint64_t next[3] = {0};
    CHECK_INT(mix.length, 10);
    for (uint64_t g = 0; g < 10000; g++) {
        uint64_t index;
        size_t source = opd_mix_at(&mix, g, &index);
        CHECK_INT(index, next[source]++); /* each source's own groups are counted up */
        for (size_t i = 0; i < 3; i++) /* and every beginning has nearly its share */
            CHECK(fabs((double)next[i] - WEIGHTS[i] / 10 * (double)(g + 1)) <= 1);
    }
    static const double TINY[] = {1e-12, 5e8, 5e8, 3e-7};
    mix = opd_mix_of(TINY, 4);
    CHECK_INT(mix.length, OPD_MIX_LENGTH_MAX);
    CHECK_INT(mix.places[0], 1); /* no source is never asked */
    CHECK_INT(mix.places[3], 1);
    CHECK_INT(mix.places[1] + mix.places[2], OPD_MIX_LENGTH_MAX - 2);
    static const double ONE[] = {0.3};
    mix = opd_mix_of(ONE, 1);
    CHECK_INT(mix.length, 1);
}

TEST(sources_have_epochs_of_their_own) {
    static const char THREE[] = ROW("b0") ROW("b1") ROW("b2");
    opd_dataset_options o = options_of(SEVEN), both[2] = {o, o};
    opd_dataset *d, *again;
    char other[32];
    memcpy(other, path, sizeof other);
    opd_dataset_options second = options_of(THREE);
    both[0].path = other;
    both[1].path = second.path;
    both[0].shuffle = both[1].shuffle = true;
    both[0].weight = 3, both[1].weight = 1, both[1].seed = 9;
    both[0].name = "long", both[1].name = "short";
    both[1].keys.source = "r"; /* the record's own value wins */
    CHECK_OK(opd_dataset_open_mixed(both, 2, &d));
    CHECK_OK(opd_dataset_open_mixed(both, 2, &again));
    CHECK_INT(d->count, ROWS + 3);
    uint64_t seen[2] = {0}, epoch, other_epoch;
    for (uint64_t g = 0; g < 400; g++) {
        const opd_row *row = opd_dataset_row(d, g, &epoch);
        int b = row->prompt[0] == 'b';
        CHECK_STR(row->source, b ? "xy" : "long");
        CHECK_INT(epoch, seen[b]++ / (b ? 3 : ROWS));
        CHECK_STR(opd_dataset_row(again, 399 - g, &other_epoch)->prompt, opd_dataset_row(d, 399 - g, &epoch)->prompt);
    }
    CHECK_INT(seen[0], 300);
    opd_dataset_close(again);
    unlink(other);
    done(d);
}

TEST(no_memory_is_an_error_at_every_point) {
    opd_dataset_options o = options_of(SEVEN);
    opd_dataset *d = NULL;
    opd_test_alloc memory;
    o.alloc = &memory.alloc;
    for (long n = 1;; n++) {
        opd_test_alloc_failing(&memory, n, false);
        if (opd_dataset_open(&o, &d) == OPD_OK) break;
        CHECK_INT(memory.live, 0);
        CHECK(n < 100);
    }
    opd_dataset_close(d);
    CHECK_INT(memory.live, 0);
    done(NULL);
}

/* ---- the actor ---- */

/* Plays rollout and trainer: notes the groups, admits a batch when the last one is complete. */
typedef struct sink {
    opd_msg *kept;
    opd_timer timer;
} sink;

static opd_roles roles;
static uint64_t first_group, seen_groups, admitted;
static int32_t sequence[GROUPS + 1]; /* the digit of each group's prompt */
static int holds;
static bool held, examples;

static opd_err admit(opd_ctx *ctx, uint64_t group_end) {
    opd_admit_fields f = {.group_end = group_end, .min_version = group_end / BATCH};
    admitted = group_end;
    return opd_message_send(ctx, roles.dataset, OPD_MESSAGE_ADMIT, &f);
}

static opd_err hold(opd_ctx *ctx, bool on) {
    opd_hold_fields f = {.hold = on};
    held = on;
    holds += on;
    return opd_message_send(ctx, roles.dataset, OPD_MESSAGE_HOLD, &f);
}

static opd_err sink_later(opd_ctx *ctx, void *state, opd_timer *timer) {
    (void)timer;
    sink *k = state;
    bool credit = k->kept != NULL;
    opd_msg_release(k->kept); /* its credit returns only now */
    k->kept = NULL;
    if (held && credit) return opd_timer_start_after(&k->timer, 300000); /* nothing may come now */
    if (held) OPD_TRY(hold(ctx, false));
    if (first_group + seen_groups == GROUPS) opd_system_stop(opd_self_system(ctx), OPD_OK);
    return OPD_OK;
}

static opd_err sink_message(opd_ctx *ctx, void *state, opd_msg *msg) {
    sink *k = state;
    opd_prompt_fields prompt = {0};
    opd_example_fields example;
    if (examples) {
        CHECK_OK(opd_message_read(msg, OPD_MESSAGE_EXAMPLE, &example));
        prompt = (opd_prompt_fields){.group = example.group, .epoch = example.epoch, .tokens = example.tokens};
    } else {
        CHECK_OK(opd_message_read(msg, OPD_MESSAGE_PROMPT, &prompt));
        CHECK(prompt.group < admitted);
        CHECK_INT(prompt.min_version, prompt.group / BATCH + 1); /* as the ADMIT said */
        CHECK_STR(prompt.source, "xy"); /* the response, for want of another key */
    }
    CHECK_INT(prompt.group, first_group + seen_groups);
    CHECK_INT(prompt.epoch, prompt.group / ROWS);
    CHECK(!held && k->kept == NULL);
    sequence[prompt.group] = ((const int32_t *)opd_slice_data(prompt.tokens))[2];
    seen_groups++;
    k->kept = msg;
    opd_msg_take(ctx, msg);
    if (!examples && prompt.group % 5 == 2) OPD_TRY(hold(ctx, true));
    if (!examples && prompt.group + 1 == admitted && admitted < GROUPS) OPD_TRY(admit(ctx, admitted + BATCH));
    opd_timer_init(&k->timer, ctx, sink_later);
    return opd_timer_start_after(&k->timer, 300000);
}

static void sink_stop(opd_ctx *ctx, void *state) {
    (void)ctx;
    opd_msg_release(((sink *)state)->kept);
}

static opd_err starter_start(opd_ctx *ctx, void *state, const void *config) {
    (void)state;
    (void)config;
    return examples ? OPD_OK : admit(ctx, first_group + BATCH);
}

static void run_actor(uint64_t first, bool supervised) {
    static const opd_actor_class sink_class = {.name = "rollout", .state_size = sizeof(sink),
                                               .on_message = sink_message, .on_stop = sink_stop};
    static const opd_actor_class starter_class = {.name = "trainer", .on_start = starter_start};
    opd_dataset_options o = options_of(SEVEN);
    opd_dataset *d;
    opd_test_sys t;
    opd_pid pid;
    o.shuffle = true;
    o.keys.source = "r";
    CHECK_OK(opd_dataset_open(&o, &d));
    first_group = first, seen_groups = admitted = 0, examples = supervised, held = false;
    sys_up(&t, NULL);
    opd_dataset_config config = {.dataset = d, .roles = &roles, .examples = supervised,
                                 .first_group = first, .group_end = GROUPS, .window_msgs = 1, .window_bytes = 1 << 16};
    CHECK_OK(opd_spawn(t.system, &sink_class, NULL, NULL, &roles.rollout));
    roles.trainer = roles.rollout;
    CHECK_OK(opd_spawn(t.system, &opd_dataset_class, NULL, &config, &roles.dataset));
    CHECK_OK(opd_spawn(t.system, &starter_class, NULL, NULL, &pid));
    CHECK_OK(opd_system_run(t.system));
    CHECK_INT(seen_groups, GROUPS - first);
    sys_down(&t);
    done(d);
}

TEST(groups_leave_in_order_as_admitted_and_not_while_held) {
    run_actor(0, false);
    CHECK(holds > 2);
}

TEST(a_resumed_run_sees_the_same_groups) {
    int32_t whole[GROUPS];
    run_actor(0, false);
    memcpy(whole, sequence, sizeof whole);
    memset(sequence, 0, sizeof sequence);
    run_actor(9, false);
    CHECK_INT(sequence[8], 0);
    CHECK(memcmp(whole + 9, sequence + 9, (GROUPS - 9) * sizeof *whole) == 0);
}

TEST(examples_need_no_admission) { run_actor(6, true); }
