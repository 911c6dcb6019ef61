/* math_value.c - see math_value.h: lists, brackets and relations around expressions, and the
 * equality of what was read. No state, any thread. */
#include "actors/reward/math_value.h"

#include <math.h>

#include "actors/reward/math_expression.h"

typedef struct reader {
    opd_math_reader r;
    opd_math_value *out;
} reader;

static opd_math_item *emit(reader *in, opd_math_kind kind, int op) {
    if (in->out->count == OPD_MATH_ITEMS_MAX) {
        in->r.failed = true;
        return &in->out->items[0];
    }
    opd_math_item *item = &in->out->items[in->out->count++];
    item->kind = (uint8_t)kind;
    item->op = (uint8_t)op;
    item->assigns = false;
    item->name = 0;
    return item;
}

/* ---- where things end ---- */

static int depth_change(const opd_latex_token *t) {
    switch (t->kind) {
    case OPD_LATEX_OPEN:
    case OPD_LATEX_GROUP_OPEN:
    case OPD_LATEX_MATRIX_OPEN: return 1;
    case OPD_LATEX_CLOSE:
    case OPD_LATEX_GROUP_CLOSE:
    case OPD_LATEX_MATRIX_CLOSE: return -1;
    default: return 0;
    }
}

static bool separates(const opd_latex_token *t) {
    return t->kind == OPD_LATEX_COMMA || t->kind == OPD_LATEX_ROW || t->kind == OPD_LATEX_UNION;
}

typedef struct span {
    const opd_latex_token *end; /* the separator or bracket that ends the element       */
    const opd_latex_token *relation; /* its last "=" or "in" outside brackets, or NULL  */
    bool plus_minus;
} span;

static span element_span(reader *in) {
    span s = {0};
    int depth = 0;
    for (s.end = in->r.at; s.end->kind != OPD_LATEX_END; s.end++) {
        ++*in->r.steps;
        depth += depth_change(s.end);
        if (depth < 0 || (depth == 0 && separates(s.end))) break;
        s.plus_minus = s.plus_minus || (s.end->kind == OPD_LATEX_OPERATOR && s.end->op == '~');
        bool gives = s.end->kind == OPD_LATEX_RELATION && (s.end->op == '=' || s.end->op == 'e');
        if (depth == 0 && gives) s.relation = s.end;
    }
    return s;
}

/* Whether an opening bracket at `at` spans up to `end` and encloses a list or is a set's. */
static bool is_composite(reader *in, const opd_latex_token *at, const opd_latex_token *end) {
    bool list = at->kind == OPD_LATEX_MATRIX_OPEN || (at->kind == OPD_LATEX_OPEN && at->op == '{');
    int depth = 0;
    if (depth_change(at) != 1) return false;
    for (const opd_latex_token *t = at; t < end; t++) {
        ++*in->r.steps;
        depth += depth_change(t);
        if (depth == 0) return list && t + 1 == end;
        list = list || (depth == 1 && separates(t));
    }
    return false;
}

/* ---- elements ---- */

static void elements(reader *in);

static void composite(reader *in) {
    opd_math_reader *r = &in->r;
    bool matrix = r->at->kind == OPD_LATEX_MATRIX_OPEN;
    int open = matrix ? 'm' : r->at->kind == OPD_LATEX_OPEN ? r->at->op : '{';
    (void)emit(in, OPD_MATH_OPEN, open);
    if (opd__math_enter(r)) {
        r->at++;
        if (depth_change(r->at) != -1) elements(in); /* else an empty set */
        if (!r->failed && depth_change(r->at) != -1) r->failed = true;
        if (!r->failed) {
            int close = matrix ? 'm' : r->at->kind == OPD_LATEX_CLOSE ? r->at->op : '}';
            (void)emit(in, OPD_MATH_CLOSE, close);
            r->at++;
        }
    }
    opd__math_leave(r);
}

/* "x", "f(x)": what can be given a value. */
static bool is_assigned(const opd_latex_token *at, const opd_latex_token *end) {
    if (at->kind != OPD_LATEX_NAME) return false;
    return end - at == 1 || (end - at == 4 && at[1].kind == OPD_LATEX_OPEN &&
                             at[2].kind == OPD_LATEX_NAME && at[3].kind == OPD_LATEX_CLOSE);
}

/* A side of a relation, as a number that can be computed with. */
static opd_math_scalar side(const opd_math_reader *r, const opd_math_scalar *of) {
    if (!of->is_infinity) return *of;
    opd_math_scalar large = opd_math_variable(1, r->point);
    return creal(of->near) < 0 ? opd_math_negate(&large) : large;
}

/* "left op right" as one item; "a > b" is "b < a". */
static opd_math_item *emit_relation(reader *in, int op, const opd_math_scalar *left,
                                    const opd_math_scalar *right) {
    bool turned = op == '>' || op == 'g';
    opd_math_scalar lower = side(&in->r, turned ? right : left);
    opd_math_scalar upper = side(&in->r, turned ? left : right), minus = opd_math_negate(&upper);
    opd_math_item *item = emit(in, OPD_MATH_RELATION, op == '>' ? '<' : op == 'g' ? 'l' : op);
    item->value = opd_math_add(&lower, &minus);
    item->right = *right;
    return item;
}

/* Of "x = 3*6 = 18" the first and the last side count; "1 < x < 2" are two relations. */
static void scalar_or_relation(reader *in) {
    opd_math_reader *r = &in->r;
    const opd_latex_token *begin = r->at;
    opd_math_scalar left = opd_math_expression(r), right = left;
    if (r->failed) return;
    int op = r->at->op;
    bool equation = op == '=';
    if (r->at->kind != OPD_LATEX_RELATION) {
        emit(in, OPD_MATH_SCALAR, 0)->value = left;
        return;
    }
    bool assigned = is_assigned(begin, r->at), number = left.is_exact;
    while (r->at->kind == OPD_LATEX_RELATION && !r->failed) {
        op = r->at->op;
        if ((op == '=') != equation) { /* "0 < x = 1" */
            r->failed = true;
            return;
        }
        r->at++;
        opd_math_scalar before = right;
        right = opd_math_expression(r);
        if (!equation && !r->failed) (void)emit_relation(in, op, &before, &right);
    }
    if (r->failed || !equation) return;
    opd_math_item *item = emit_relation(in, op, &left, &right);
    item->assigns = assigned || number;
    item->name = assigned ? begin->name : 0;
}

static void element(reader *in) {
    opd_math_reader *r = &in->r;
    span s = element_span(in);
    if (r->at->kind == OPD_LATEX_RELATION && r->at->op == '=') r->at++; /* "\approx 5" */
    if (s.relation != NULL && is_composite(in, s.relation + 1, s.end)) r->at = s.relation + 1;
    if (is_composite(in, r->at, s.end)) {
        composite(in);
        return;
    }
    const opd_latex_token *begin = r->at;
    r->plus_minus = 1;
    scalar_or_relation(in);
    if (s.plus_minus && !r->failed) {
        r->at = begin;
        r->plus_minus = -1;
        scalar_or_relation(in);
    }
    if (r->at != s.end) r->failed = true;
}

/* Elements up to a closing bracket or the end. */
static void elements(reader *in) {
    opd_math_reader *r = &in->r;
    while (!r->failed && *r->steps <= OPD_MATH_STEPS_MAX) {
        element(in);
        if (r->failed) return;
        if (r->at->kind == OPD_LATEX_ROW) (void)emit(in, OPD_MATH_ROW, 0);
        else if (r->at->kind == OPD_LATEX_UNION) (void)emit(in, OPD_MATH_UNION, 0);
        else if (r->at->kind != OPD_LATEX_COMMA) return;
        r->at++;
        if (r->at->kind == OPD_LATEX_COMMA) r->at++; /* ", and" */
        if (r->at->kind == OPD_LATEX_END || depth_change(r->at) == -1) return; /* a last comma */
    }
    r->failed = true;
}

bool opd_math_value_read(const opd_latex *latex, unsigned point, opd_math_value *out_value,
                         uint32_t *steps) {
    reader in = {.r = {.at = latex->tokens, .point = point, .steps = steps, .plus_minus = 1},
                 .out = out_value};
    out_value->count = 0;
    if (latex->count == 0) return false;
    elements(&in);
    return !in.r.failed && in.r.at->kind == OPD_LATEX_END;
}

/* ---- equality ---- */

/* Items [begin, end) of an answer read at all points. */
typedef struct part {
    const opd_math_value *points;
    size_t begin, end;
} part;

static const opd_math_item *item_at(part p, size_t i) { return &p.points[0].items[i]; }

static size_t element_end(part p, size_t begin) {
    int depth = 0;
    for (size_t i = begin; i < p.end; i++) {
        if (item_at(p, i)->kind == OPD_MATH_OPEN) depth++;
        if (item_at(p, i)->kind == OPD_MATH_CLOSE) depth--;
        if (depth <= 0) return i + 1;
    }
    return p.end;
}

static bool same_relation(part a, size_t i, part b, size_t j) {
    const opd_math_item *left = item_at(a, i), *right = item_at(b, j);
    if (left->op != right->op) return false;
    if (left->assigns && right->assigns && left->name == right->name) {
        for (unsigned p = 0; p < OPD_MATH_POINTS; p++)
            if (!opd_math_scalar_equal(&a.points[p].items[i].right, &b.points[p].items[j].right))
                return false;
        return true;
    }
    double complex first = 0;
    for (unsigned p = 0; p < OPD_MATH_POINTS; p++) {
        double complex ratio = a.points[p].items[i].value.near / b.points[p].items[j].value.near;
        if (p == 0) first = ratio;
        if (!isfinite(creal(ratio)) || !isfinite(cimag(ratio))) return false;
        if (cabs(ratio - first) > 1e-9 * cabs(first) || cabs(first) < 1e-9) return false;
        if (left->op != '=' && left->op != 'n' && creal(ratio) <= 0) return false;
    }
    return true;
}

static bool same_item(part a, size_t i, part b, size_t j) {
    const opd_math_item *left = item_at(a, i), *right = item_at(b, j);
    bool left_scalar = left->kind == OPD_MATH_SCALAR, right_scalar = right->kind == OPD_MATH_SCALAR;
    if (left->kind == OPD_MATH_RELATION && right->kind == OPD_MATH_RELATION)
        return same_relation(a, i, b, j);
    if (!left_scalar && !left->assigns) return left->kind == right->kind && left->op == right->op;
    if (!right_scalar && !right->assigns) return false;
    for (unsigned p = 0; p < OPD_MATH_POINTS; p++) {
        const opd_math_item *x = &a.points[p].items[i], *y = &b.points[p].items[j];
        if (!opd_math_scalar_equal(left_scalar ? &x->value : &x->right,
                                   right_scalar ? &y->value : &y->right))
            return false;
    }
    return true;
}

static bool same_sequence(part a, part b) {
    if (a.end - a.begin != b.end - b.begin) return false;
    for (size_t i = 0; i < a.end - a.begin; i++)
        if (!same_item(a, a.begin + i, b, b.begin + i)) return false;
    return true;
}

/* Every element has its own partner on the other side; elements are sequences. */
static bool same_elements(part a, part b) {
    bool used[OPD_MATH_ITEMS_MAX] = {false};
    if (a.end - a.begin != b.end - b.begin) return false;
    for (size_t i = a.begin; i < a.end;) {
        part left = {a.points, i, element_end(a, i)};
        bool found = false;
        for (size_t j = b.begin; j < b.end && !found;) {
            part right = {b.points, j, element_end(b, j)};
            found = !used[j] && same_sequence(left, right);
            if (found) used[j] = true;
            j = right.end;
        }
        if (!found) return false;
        i = left.end;
    }
    return true;
}

/* The bracket around all of it: ( [ { m with its contents in *inner, or 0 for a bare list. */
static int around(part whole, part *inner) {
    *inner = whole;
    if (whole.begin == whole.end || item_at(whole, whole.begin)->kind != OPD_MATH_OPEN ||
        element_end(whole, whole.begin) != whole.end)
        return 0;
    inner->begin++;
    inner->end--;
    return item_at(whole, whole.begin)->op;
}

bool opd_math_value_equal(const opd_math_value a[OPD_MATH_POINTS],
                          const opd_math_value b[OPD_MATH_POINTS]) {
    for (unsigned p = 1; p < OPD_MATH_POINTS; p++)
        if (a[p].count != a[0].count || b[p].count != b[0].count) return false;
    part left = {a, 0, a[0].count}, right = {b, 0, b[0].count}, in_left, in_right;
    int around_left = around(left, &in_left), around_right = around(right, &in_right);
    bool set_left = around_left == 0 || around_left == '{';
    bool set_right = around_right == 0 || around_right == '{';
    if (set_left && set_right) return same_elements(in_left, in_right);
    if (same_sequence(left, right)) return true;
    bool bare = (around_left == 0 && around_right == '(') ||
                (around_left == '(' && around_right == 0);
    return bare && same_sequence(in_left, in_right);
}
