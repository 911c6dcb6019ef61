/* rules.c - see rules.h: which rule judges, and the two that need no file of their own. No state, any
 * thread. */
#include "actors/reward/rules.h"

#include <stdint.h>
#include <string.h>

#include "actors/reward/math.h"

enum { LABEL_WORDS_MAX = 2048, TABLE_SIZE = 2 * LABEL_WORDS_MAX };

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }
static bool is_punctuation(char c) {
    return c > ' ' && c < 127 && !is_digit(c) && !is_letter(c);
}

/* ---- f1 ---- */

/* The next word without punctuation and in lower case, as a hash; articles are passed over. */
static bool next_word(opd_piece *text, uint64_t *out_hash) {
    for (;;) {
        uint64_t hash = UINT64_C(0xcbf29ce484222325);
        char word[4] = "";
        size_t size = 0;
        while (text->data < text->end && is_blank(*text->data)) text->data++;
        if (text->data == text->end) return false;
        for (; text->data < text->end && !is_blank(*text->data); text->data++) {
            char c = lower(*text->data);
            if (is_punctuation(c)) continue;
            if (size < 3) word[size] = c;
            size++;
            hash = (hash ^ (uint8_t)c) * UINT64_C(0x100000001b3);
        }
        bool article = (size == 1 && word[0] == 'a') || (size == 2 && memcmp(word, "an", 2) == 0) ||
                       (size == 3 && memcmp(word, "the", 3) == 0);
        *out_hash = hash;
        if (size > 0 && !article) return true;
    }
}

typedef struct word_count {
    uint64_t hash;
    uint32_t count;
} word_count;

static word_count *find_word(word_count table[TABLE_SIZE], uint64_t hash) {
    size_t i = (size_t)(hash % TABLE_SIZE);
    while (table[i].count > 0 && table[i].hash != hash) i = (i + 1) % TABLE_SIZE;
    return &table[i];
}

static bool is_only_word(opd_piece text, const char *want) {
    opd_piece other = {want, want + strlen(want)};
    uint64_t first, second, wanted;
    return next_word(&text, &first) && !next_word(&text, &second) && next_word(&other, &wanted) &&
           first == wanted;
}

/* What counts only whole: one side says it, the other does not. */
static bool is_contradiction(opd_piece a, opd_piece b) {
    static const char *const WHOLE[] = {"yes", "no", "noanswer"};
    for (size_t i = 0; i < sizeof WHOLE / sizeof WHOLE[0]; i++)
        if (is_only_word(a, WHOLE[i]) != is_only_word(b, WHOLE[i])) return true;
    return false;
}

double opd_reward_f1(opd_piece response, opd_piece label) {
    word_count table[TABLE_SIZE] = {{0, 0}};
    bool matched[TABLE_SIZE] = {false};
    uint32_t left[TABLE_SIZE];
    size_t label_words = 0, response_words = 0, common = 0;
    uint64_t hash;
    if (is_contradiction(response, label)) return 0;
    while (label_words < LABEL_WORDS_MAX && next_word(&label, &hash)) {
        word_count *word = find_word(table, hash);
        word->hash = hash;
        word->count++;
        label_words++;
    }
    for (; next_word(&response, &hash); response_words++) {
        word_count *word = find_word(table, hash);
        size_t i = (size_t)(word - table);
        if (word->count == 0) continue;
        if (!matched[i]) left[i] = word->count;
        matched[i] = true;
        if (left[i] == 0) continue;
        left[i]--;
        common++;
    }
    if (common == 0) return 0;
    double precision = (double)common / (double)response_words;
    double recall = (double)common / (double)label_words;
    return 2 * precision * recall / (precision + recall);
}

/* ---- multiple choice ---- */

static opd_piece skip_any(opd_piece text, const char *bytes) {
    while (text.data < text.end && *text.data != '\0' && strchr(bytes, *text.data)) text.data++;
    return text;
}

/* A capital that stands alone, and is not "A" or "I" as a word of a sentence. */
static bool is_option(opd_piece text) {
    if (text.data == text.end || !is_letter(*text.data)) return false;
    if (text.end - text.data == 1) return true;
    if (is_letter(text.data[1]) || is_digit(text.data[1]) || text.data[1] == '\'') return false;
    bool word = text.end - text.data > 2 && text.data[1] == ' ' && is_letter(text.data[2]) &&
                lower(text.data[2]) == text.data[2];
    return !word || (*text.data != 'A' && *text.data != 'I');
}

/* Behind an option: whether another one follows, as in "A, B", "(A) or (B)", "A/B", "A B". */
static bool is_followed_by_option(opd_piece text) {
    static const char *const BETWEEN[] = {"or ", "and ", "\\text{or}", "\\text{ or }"};
    const char *begin = text.data;
    text = skip_any(text, " ");
    bool joined = text.data > begin;
    text = skip_any(text, " .)]}*$\"'");
    for (size_t i = 0; i < sizeof BETWEEN / sizeof BETWEEN[0]; i++) {
        size_t size = strlen(BETWEEN[i]);
        if (opd_piece_size(text) <= size || memcmp(text.data, BETWEEN[i], size) != 0) continue;
        text.data += size;
        joined = true;
        break;
    }
    begin = text.data;
    text = skip_any(text, ",/&;|+");
    joined = joined || text.data > begin;
    text = skip_any(text, " ([{*$\"'");
    return joined && is_option(text) && lower(*text.data) != *text.data;
}

/* "B", "(B)", "**B**", "B.", "\text{B}", "option B" at the front of a text; 0 where it is none, or where
 * several are named. */
static char option_at(opd_piece text) {
    static const char *const BEFORE[] = {"option", "choice", "\\text{", "\\textbf{", "\\mathrm{", "is"};
    bool again = true;
    while (again) {
        text = skip_any(text, " \t\n\v\f\r($*:{[\"'");
        again = false;
        for (size_t i = 0; i < sizeof BEFORE / sizeof BEFORE[0] && !again; i++) {
            size_t size = strlen(BEFORE[i]);
            again = opd_piece_size(text) > size;
            for (size_t c = 0; c < size && again; c++) again = lower(text.data[c]) == BEFORE[i][c];
            if (again) text.data += size;
        }
    }
    if (!is_option(text) || is_followed_by_option((opd_piece){text.data + 1, text.end})) return 0;
    return (char)(lower(*text.data) - 'a' + 'A');
}

double opd_reward_choice(opd_piece response, opd_piece label) {
    opd_piece answer;
    char right = option_at(label), chosen = 0;
    if (opd_answer_marked(response, &answer)) {
        chosen = option_at(answer);
    } else { /* the last line */
        answer = opd_piece_trim(response);
        const char *line = answer.end;
        while (line > answer.data && line[-1] != '\n') line--;
        chosen = option_at((opd_piece){line, answer.end});
    }
    return right != 0 && chosen == right ? 1 : 0;
}

/* ---- which ---- */

double opd_reward_judge(opd_reward_rule rule, bool boxed, opd_piece response, opd_piece label) {
    response = opd_answer_window(response);
    label = opd_answer_window(label);
    opd_piece content = {response.end, response.end};
    if (boxed) {
        (void)opd_answer_boxed(response, &content);
        response = content;
    }
    switch (rule) {
    case OPD_REWARD_RULE_NONE: return 0;
    case OPD_REWARD_RULE_MATH:
        if (boxed)
            return opd_answer_matches(response.data, opd_piece_size(response), label.data,
                                      opd_piece_size(label), NULL);
        return opd_reward_math(response.data, opd_piece_size(response), label.data,
                               opd_piece_size(label));
    case OPD_REWARD_RULE_DAPO: return opd_reward_dapo(response, label);
    case OPD_REWARD_RULE_F1: return opd_reward_f1(response, label);
    case OPD_REWARD_RULE_CHOICE: return opd_reward_choice(response, label);
    }
    return 0;
}
