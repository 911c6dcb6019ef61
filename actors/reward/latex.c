/* latex.c - see latex.h: one pass over the bytes; commands, words and Unicode signs are looked up
 * in tables. No state, any thread. */
#include "actors/reward/latex.h"

#include <string.h>

typedef struct lexer {
    const char *at, *end;
    opd_latex *out;
    int brackets; /* open ones: a comma there parts the elements of a list */
    bool failed;
} lexer;

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_blank(char c) { return c == ' ' || c == '~' || (c >= '\t' && c <= '\r'); }

/* FNV-1a, so that equal names are equal numbers. */
static uint64_t hash_byte(uint64_t hash, char c) {
    return (hash ^ (uint8_t)c) * UINT64_C(0x100000001b3);
}

static uint64_t hash_bytes(const char *text, size_t size) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++) hash = hash_byte(hash, text[i]);
    return hash;
}

static opd_latex_token *emit(lexer *l, opd_latex_kind kind, int op) {
    opd_latex *out = l->out;
    if (out->count == OPD_LATEX_TOKENS_MAX) {
        l->failed = true;
        l->at = l->end;
        return &out->tokens[OPD_LATEX_TOKENS_MAX];
    }
    opd_latex_token *token = &out->tokens[out->count++];
    *token = (opd_latex_token){.kind = (uint8_t)kind, .op = (uint8_t)op};
    l->brackets += (kind == OPD_LATEX_OPEN) - (kind == OPD_LATEX_CLOSE);
    return token;
}

static opd_latex_token *last_token(lexer *l) {
    return l->out->count > 0 ? &l->out->tokens[l->out->count - 1] : NULL;
}

static void skip_blanks(lexer *l) {
    while (l->at < l->end && is_blank(*l->at)) l->at++;
}

static bool take(lexer *l, const char *want) {
    size_t size = strlen(want);
    if ((size_t)(l->end - l->at) < size || memcmp(l->at, want, size) != 0) return false;
    l->at += size;
    return true;
}

/* ---- tables ---- */

typedef struct symbol {
    const char *text;
    uint8_t kind, op;
} symbol;

#define FUNCTION(name, id) {name, OPD_LATEX_FUNCTION, id}

/* Names that mean the same with and without a backslash. */
static const symbol NAMES[] = {
    FUNCTION("sin", OPD_LATEX_SIN), FUNCTION("cos", OPD_LATEX_COS), FUNCTION("tan", OPD_LATEX_TAN),
    FUNCTION("cot", OPD_LATEX_COT), FUNCTION("sec", OPD_LATEX_SEC), FUNCTION("csc", OPD_LATEX_CSC),
    FUNCTION("arcsin", OPD_LATEX_ASIN), FUNCTION("arccos", OPD_LATEX_ACOS),
    FUNCTION("arctan", OPD_LATEX_ATAN), FUNCTION("asin", OPD_LATEX_ASIN),
    FUNCTION("acos", OPD_LATEX_ACOS), FUNCTION("atan", OPD_LATEX_ATAN),
    FUNCTION("sinh", OPD_LATEX_SINH), FUNCTION("cosh", OPD_LATEX_COSH),
    FUNCTION("tanh", OPD_LATEX_TANH), FUNCTION("ln", OPD_LATEX_LN), FUNCTION("log", OPD_LATEX_LOG),
    FUNCTION("exp", OPD_LATEX_EXP), {"sqrt", OPD_LATEX_ROOT, 0}, {"pi", OPD_LATEX_CONSTANT, 'p'},
    {"infty", OPD_LATEX_CONSTANT, 'o'}, {"infinity", OPD_LATEX_CONSTANT, 'o'},
    {"inf", OPD_LATEX_CONSTANT, 'o'}, {"and", OPD_LATEX_COMMA, 0}, {"or", OPD_LATEX_COMMA, 0}};

static const symbol COMMANDS[] = {
    {"frac", OPD_LATEX_FRACTION, 0}, {"dfrac", OPD_LATEX_FRACTION, 0},
    {"tfrac", OPD_LATEX_FRACTION, 0}, {"cfrac", OPD_LATEX_FRACTION, 0},
    {"cdot", OPD_LATEX_OPERATOR, '*'}, {"times", OPD_LATEX_OPERATOR, '*'},
    {"div", OPD_LATEX_OPERATOR, '/'}, {"pm", OPD_LATEX_OPERATOR, '~'},
    {"mp", OPD_LATEX_OPERATOR, '~'}, {"le", OPD_LATEX_RELATION, 'l'},
    {"leq", OPD_LATEX_RELATION, 'l'}, {"ge", OPD_LATEX_RELATION, 'g'},
    {"geq", OPD_LATEX_RELATION, 'g'}, {"ne", OPD_LATEX_RELATION, 'n'},
    {"neq", OPD_LATEX_RELATION, 'n'}, {"lt", OPD_LATEX_RELATION, '<'},
    {"gt", OPD_LATEX_RELATION, '>'}, {"approx", OPD_LATEX_RELATION, '='},
    {"in", OPD_LATEX_RELATION, 'e'}, {"cup", OPD_LATEX_UNION, 0}, {"mid", OPD_LATEX_BAR, 0},
    {"lvert", OPD_LATEX_BAR, 0}, {"rvert", OPD_LATEX_BAR, 0}, {"vert", OPD_LATEX_BAR, 0},
    {"lbrace", OPD_LATEX_OPEN, '{'}, {"rbrace", OPD_LATEX_CLOSE, '}'}};

/* Commands that only change the looks of what follows. */
static const char *const LOOKS[] = {
    "left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "displaystyle",
    "textstyle", "mathbf", "mathbb", "mathcal", "boldsymbol", "bm", "quad", "qquad", "circ",
    "degree", "ldots", "dots", "cdots", "boxed", "limits", "rm", "bf", "it"};

/* Commands whose group is text. */
static const char *const TEXTS[] = {"text", "mathrm", "textbf", "textrm", "textit", "mbox",
                                    "operatorname", "hbox", "mathit", "mathsf"};

static const char *const EMPTY_SETS[] = {"emptyset", "varnothing"};

static const symbol SIGNS[] = {
    {"\xE2\x88\x92", OPD_LATEX_OPERATOR, '-'}, {"\xE2\x80\x93", OPD_LATEX_OPERATOR, '-'},
    {"\xC3\x97", OPD_LATEX_OPERATOR, '*'}, {"\xC2\xB7", OPD_LATEX_OPERATOR, '*'},
    {"\xE2\x8B\x85", OPD_LATEX_OPERATOR, '*'}, {"\xC3\xB7", OPD_LATEX_OPERATOR, '/'},
    {"\xC2\xB1", OPD_LATEX_OPERATOR, '~'}, {"\xE2\x88\x9A", OPD_LATEX_ROOT, 0},
    {"\xCF\x80", OPD_LATEX_CONSTANT, 'p'}, {"\xE2\x88\x9E", OPD_LATEX_CONSTANT, 'o'},
    {"\xE2\x89\xA4", OPD_LATEX_RELATION, 'l'}, {"\xE2\x89\xA5", OPD_LATEX_RELATION, 'g'},
    {"\xE2\x89\xA0", OPD_LATEX_RELATION, 'n'}, {"\xE2\x88\x88", OPD_LATEX_RELATION, 'e'},
    {"\xE2\x88\xAA", OPD_LATEX_UNION, 0}, {"<=", OPD_LATEX_RELATION, 'l'},
    {">=", OPD_LATEX_RELATION, 'g'}, {"!=", OPD_LATEX_RELATION, 'n'},
    {"==", OPD_LATEX_RELATION, '='}, {"**", OPD_LATEX_OPERATOR, '^'},
    {"=", OPD_LATEX_RELATION, '='}, {"<", OPD_LATEX_RELATION, '<'},
    {">", OPD_LATEX_RELATION, '>'}, {"+", OPD_LATEX_OPERATOR, '+'},
    {"-", OPD_LATEX_OPERATOR, '-'}, {"*", OPD_LATEX_OPERATOR, '*'},
    {"/", OPD_LATEX_OPERATOR, '/'}, {":", OPD_LATEX_OPERATOR, '/'},
    {"!", OPD_LATEX_OPERATOR, '!'}, {"%", OPD_LATEX_OPERATOR, '%'}, {"(", OPD_LATEX_OPEN, '('},
    {"[", OPD_LATEX_OPEN, '['}, {")", OPD_LATEX_CLOSE, ')'}, {"]", OPD_LATEX_CLOSE, ']'},
    {"{", OPD_LATEX_GROUP_OPEN, 0}, {"}", OPD_LATEX_GROUP_CLOSE, 0}, {"|", OPD_LATEX_BAR, 0},
    {",", OPD_LATEX_COMMA, 0}, {";", OPD_LATEX_COMMA, 0}, {"&", OPD_LATEX_COMMA, 0}};

/* Signs without meaning for a value: the dollar, degree, pound, yen and euro. */
static const char *const MARKS[] = {"$", "\xC2\xB0", "\xC2\xA3", "\xC2\xA5", "\xE2\x82\xAC", "."};

static const symbol *find_symbol(const symbol *table, size_t count, const char *name,
                                 size_t size) {
    for (size_t i = 0; i < count; i++)
        if (strlen(table[i].text) == size && memcmp(table[i].text, name, size) == 0)
            return &table[i];
    return NULL;
}

static bool is_listed(const char *const *list, size_t count, const char *name, size_t size) {
    for (size_t i = 0; i < count; i++)
        if (strlen(list[i]) == size && memcmp(list[i], name, size) == 0) return true;
    return false;
}

#define IN(list, name, size) is_listed(list, sizeof(list) / sizeof((list)[0]), name, size)
#define SYMBOL(table, name, size) find_symbol(table, sizeof(table) / sizeof((table)[0]), name, size)

/* ---- numbers ---- */

/* Length of a thousands separator with its three digits at `at`, else 0. In brackets "(107,123)" a plain
 * comma is none. */
static size_t thousands(const char *at, const char *end, bool in_brackets) {
    static const char *const SEPARATORS[] = {",", ",\\!", "{,}", "\\,", "\\!"};
    for (size_t i = in_brackets; i < sizeof SEPARATORS / sizeof SEPARATORS[0]; i++) {
        size_t size = strlen(SEPARATORS[i]);
        if ((size_t)(end - at) < size + 3 || memcmp(at, SEPARATORS[i], size) != 0) continue;
        const char *d = at + size;
        if (is_digit(d[0]) && is_digit(d[1]) && is_digit(d[2]) && (d + 3 == end || !is_digit(d[3])))
            return size + 3;
    }
    return 0;
}

static void read_number(lexer *l) {
    const char *begin = l->at;
    while (l->at < l->end && is_digit(*l->at)) l->at++;
    if (l->at > begin && l->at - begin <= 3 && *begin != '0')
        for (size_t more; (more = thousands(l->at, l->end, l->brackets > 0)) > 0;) l->at += more;
    if (l->at < l->end && *l->at == '.') l->at++;
    while (l->at < l->end && is_digit(*l->at)) l->at++;
    if (l->end - l->at >= 2 && (*l->at == 'e' || *l->at == 'E')) {
        const char *sign = l->at + 1, *digits = sign + (*sign == '-' || *sign == '+');
        if (digits < l->end && is_digit(*digits)) {
            while (digits < l->end && is_digit(*digits)) digits++;
            l->at = digits;
        }
    }
    opd_latex_token *token = emit(l, OPD_LATEX_NUMBER, 0);
    token->text = begin;
    token->size = (uint16_t)(l->at - begin);
}

/* "\frac12": one digit is an argument. */
static void read_digit_arguments(lexer *l) {
    for (int i = 0; i < 2; i++) {
        skip_blanks(l);
        if (l->at == l->end || !is_digit(*l->at)) return;
        opd_latex_token *token = emit(l, OPD_LATEX_NUMBER, 0);
        token->text = l->at++;
        token->size = 1;
    }
}

/* ---- names and texts ---- */

static bool ends_value(const opd_latex_token *t) {
    return t != NULL && (t->kind == OPD_LATEX_NUMBER || t->kind == OPD_LATEX_GROUP_CLOSE ||
                         t->kind == OPD_LATEX_CLOSE);
}

/* The end of the brace group that opens at `at`, which is the last byte where it never closes. */
static const char *group_end(const char *at, const char *end) {
    int depth = 0;
    for (; at < end; at++) {
        if (*at == '{') depth++;
        if (*at == '}' && --depth == 0) return at;
    }
    return end;
}

/* A text in a formula: a connective, a function's name, a variable of one letter, or a word. */
static void read_text(lexer *l) {
    skip_blanks(l);
    if (l->at == l->end || *l->at != '{') return;
    const char *begin = l->at + 1, *stop = group_end(l->at, l->end);
    l->at = stop < l->end ? stop + 1 : stop;
    bool apart = begin < stop && is_blank(*begin);
    while (begin < stop && (is_blank(*begin) || *begin == '(')) begin++;
    while (stop > begin && (is_blank(stop[-1]) || stop[-1] == '.' || stop[-1] == ')')) stop--;
    size_t size = (size_t)(stop - begin);
    const symbol *known = SYMBOL(NAMES, begin, size);
    if (size == 0) return;
    if (known != NULL) {
        (void)emit(l, (opd_latex_kind)known->kind, known->op);
        return;
    }
    bool name = size == 1 && is_letter(*begin) && !apart && !ends_value(last_token(l));
    int constant = name && (*begin == 'e' || *begin == 'i') ? *begin : 0;
    opd_latex_token *token = emit(l, name ? OPD_LATEX_NAME : OPD_LATEX_WORD, constant);
    uint64_t hash = hash_bytes("", 0);
    for (const char *c = begin; c < stop; c++)
        if (name) hash = hash_byte(hash, *c);
        else if (is_letter(*c)) hash = hash_byte(hash, (char)(*c | 0x20));
        else if (is_digit(*c)) hash = hash_byte(hash, *c);
    token->name = hash;
}

/* Letters side by side: a known name, variables of a letter each, or a word. */
static void read_letters(lexer *l) {
    const char *begin = l->at;
    while (l->at < l->end && is_letter(*l->at)) l->at++;
    size_t size = (size_t)(l->at - begin);
    const symbol *known = SYMBOL(NAMES, begin, size);
    if (known != NULL) {
        (void)emit(l, (opd_latex_kind)known->kind, known->op);
    } else if (size == 2 && memcmp(begin, "np", 2) == 0 && l->at < l->end && *l->at == '.') {
        l->at++; /* np.sin of the Python people */
    } else if (size <= 3) {
        for (size_t i = 0; i < size; i++) {
            bool constant = begin[i] == 'e' || begin[i] == 'i';
            emit(l, OPD_LATEX_NAME, constant ? begin[i] : 0)->name = hash_bytes(begin + i, 1);
        }
    } else {
        uint64_t hash = hash_bytes("", 0);
        for (size_t i = 0; i < size; i++) hash = hash_byte(hash, (char)(begin[i] | 0x20));
        emit(l, OPD_LATEX_WORD, 'w')->name = hash;
    }
}

/* Behind "_" and "^": the bytes of a group or of one sign, without the braces. */
static void argument(lexer *l, const char **out_begin, const char **out_end) {
    skip_blanks(l);
    *out_begin = *out_end = l->at;
    if (l->at == l->end) return;
    if (*l->at == '{') {
        *out_begin = l->at + 1;
        *out_end = group_end(l->at, l->end);
        l->at = *out_end < l->end ? *out_end + 1 : l->end;
        return;
    }
    if (*l->at++ == '\\')
        while (l->at < l->end && is_letter(*l->at)) l->at++;
    *out_end = l->at;
}

/* A subscript becomes part of the name before it; "\log_2" keeps its base. */
static void read_subscript(lexer *l) {
    opd_latex_token *owner = last_token(l);
    if (owner != NULL && owner->kind == OPD_LATEX_FUNCTION) {
        (void)emit(l, OPD_LATEX_SUBSCRIPT, 0);
        return;
    }
    const char *begin, *end;
    argument(l, &begin, &end);
    if (owner == NULL || (owner->kind != OPD_LATEX_NAME && owner->kind != OPD_LATEX_WORD)) return;
    owner->name = hash_byte(owner->name, '_');
    owner->op = 0; /* e_1 is not Euler's number */
    for (const char *c = begin; c < end; c++) {
        if (end - c > 6 && memcmp(c, "\\text", 5) == 0) c += 5;
        else if (end - c > 8 && memcmp(c, "\\mathrm", 7) == 0) c += 7;
        if (!is_blank(*c) && *c != '{' && *c != '}') owner->name = hash_byte(owner->name, *c);
    }
}

/* "^" is a power, but for degrees (nothing) and primes (part of the name). */
static void read_superscript(lexer *l) {
    const char *back = l->at, *begin, *end;
    argument(l, &begin, &end);
    bool degrees = false, primes = end > begin;
    opd_latex_token *owner = last_token(l);
    for (const char *c = begin; c < end && primes; c++) {
        if (end - c >= 6 && memcmp(c, "\\prime", 6) == 0) c += 5;
        else if (*c != '\'' && !is_blank(*c)) primes = false;
    }
    while (begin < end && is_blank(*begin)) begin++;
    degrees = end - begin >= 5 && memcmp(begin, "\\circ", 5) == 0;
    if (degrees) return;
    if (primes && owner != NULL && owner->kind == OPD_LATEX_NAME) {
        for (const char *c = begin; c < end; c++)
            if (*c == '\\' || *c == '\'') owner->name = hash_byte(owner->name, '\'');
        return;
    }
    if (primes) return; /* minutes of an angle */
    l->at = back;
    (void)emit(l, OPD_LATEX_OPERATOR, '^');
}

/* ---- commands ---- */

static void read_environment(lexer *l, bool begins) {
    const char *begin, *end;
    argument(l, &begin, &end);
    bool array = end - begin >= 5 && memcmp(begin, "array", 5) == 0;
    bool matrix = array;
    for (const char *c = begin; c < end && !matrix; c++)
        matrix = end - c >= 6 && memcmp(c, "matrix", 6) == 0;
    if (!matrix) return;
    if (array && begins) argument(l, &begin, &end); /* its columns */
    (void)emit(l, begins ? OPD_LATEX_MATRIX_OPEN : OPD_LATEX_MATRIX_CLOSE, 0);
}

static void read_word_command(lexer *l) {
    const char *name = l->at;
    while (l->at < l->end && is_letter(*l->at)) l->at++;
    size_t size = (size_t)(l->at - name);
    const symbol *known = SYMBOL(COMMANDS, name, size);
    if (known == NULL) known = SYMBOL(NAMES, name, size);
    if (known != NULL) {
        (void)emit(l, (opd_latex_kind)known->kind, known->op);
        if (known->kind == OPD_LATEX_FRACTION) read_digit_arguments(l);
    } else if (IN(TEXTS, name, size)) {
        read_text(l);
    } else if (IN(EMPTY_SETS, name, size)) {
        (void)emit(l, OPD_LATEX_OPEN, '{');
        (void)emit(l, OPD_LATEX_CLOSE, '}');
    } else if (size == 5 && memcmp(name, "begin", 5) == 0) {
        read_environment(l, true);
    } else if (size == 3 && memcmp(name, "end", 3) == 0) {
        read_environment(l, false);
    } else if (!IN(LOOKS, name, size)) {
        emit(l, OPD_LATEX_NAME, 0)->name = hash_bytes(name - 1, size + 1);
    } else if (size >= 4 && memcmp(name, "left", 4) == 0 && l->at < l->end && *l->at == '.') {
        l->at++; /* an invisible bracket */
    }
}

static void read_command(lexer *l) {
    l->at++;
    if (l->at == l->end) return;
    char c = *l->at;
    if (is_letter(c)) {
        read_word_command(l);
        return;
    }
    l->at++;
    if (c == '{') (void)emit(l, OPD_LATEX_OPEN, '{');
    else if (c == '}') (void)emit(l, OPD_LATEX_CLOSE, '}');
    else if (c == '%') (void)emit(l, OPD_LATEX_OPERATOR, '%');
    else if (c == '\\') (void)emit(l, OPD_LATEX_ROW, 0);
    else if (c == '|') (void)emit(l, OPD_LATEX_BAR, 0);
    /* else a thin space, \$, or a delimiter of formulas: only looks */
}

static bool read_sign(lexer *l) {
    for (size_t i = 0; i < sizeof SIGNS / sizeof SIGNS[0]; i++)
        if (take(l, SIGNS[i].text)) {
            (void)emit(l, (opd_latex_kind)SIGNS[i].kind, SIGNS[i].op);
            return true;
        }
    for (size_t i = 0; i < sizeof MARKS / sizeof MARKS[0]; i++)
        if (take(l, MARKS[i])) return true;
    return false;
}

static void read_token(lexer *l) {
    char c = *l->at;
    if (is_digit(c) || (c == '.' && l->end - l->at > 1 && is_digit(l->at[1]))) {
        read_number(l);
    } else if (is_letter(c)) {
        read_letters(l);
    } else if (c == '\\') {
        read_command(l);
    } else if (c == '_' || c == '^') {
        l->at++;
        if (c == '_') read_subscript(l);
        else read_superscript(l);
    } else if (c == '\'') {
        l->at++;
        opd_latex_token *owner = last_token(l);
        if (owner != NULL && owner->kind == OPD_LATEX_NAME) owner->name = hash_byte(owner->name, c);
    } else if (!read_sign(l)) {
        const char *begin = l->at++;
        if ((uint8_t)c < 0x80) l->failed = true;
        while (l->at < l->end && ((uint8_t)*l->at & 0xC0) == 0x80) l->at++;
        emit(l, OPD_LATEX_NAME, 0)->name = hash_bytes(begin, (size_t)(l->at - begin));
    }
}

bool opd_latex_read(const char *text, size_t size_bytes, opd_latex *out_latex) {
    lexer l = {.at = text, .end = text + size_bytes, .out = out_latex};
    out_latex->count = 0;
    for (skip_blanks(&l); l.at < l.end && !l.failed; skip_blanks(&l)) read_token(&l);
    out_latex->tokens[out_latex->count] = (opd_latex_token){.kind = OPD_LATEX_END};
    return !l.failed;
}
