/* latex.h - an answer in LaTeX or plain text as tokens that mean something.
 *
 * What only looks is dropped here: \left, \right, blanks and thin spaces, dollar signs, degrees,
 * \displaystyle, styles such as \mathbf, a final period. Notations of one thing become one token:
 * \dfrac and \tfrac; \cdot, \times and *; \le and the Unicode sign; \ne; \text{or} and a comma;
 * thousands separators inside a number. A subscript and primes belong to their variable's name.
 *
 * Invariants: one pass, at most OPD_LATEX_TOKENS_MAX tokens, fixed memory, any bytes legal; tokens
 * of numbers point into the caller's text. Thread: any; no state.
 */
#ifndef OPD_ACTORS_REWARD_LATEX_H
#define OPD_ACTORS_REWARD_LATEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OPD_LATEX_TOKENS_MAX = 512 };

typedef enum opd_latex_kind {
    OPD_LATEX_END,
    OPD_LATEX_NUMBER,      /* text: digits, separators, a point, an exponent */
    OPD_LATEX_NAME,        /* a variable: name; op: e or i where it may be that constant */
    OPD_LATEX_WORD,        /* a word: name; op: w where it stood outside \text */
    OPD_LATEX_FUNCTION,    /* op: an opd_latex_function                     */
    OPD_LATEX_OPERATOR,    /* op: + - * / ^ ! % and ~ for plus-minus        */
    OPD_LATEX_OPEN,        /* op: ( [ and { for \{                          */
    OPD_LATEX_CLOSE,       /* op: ) ] and } for \}                          */
    OPD_LATEX_GROUP_OPEN,  /* {                                             */
    OPD_LATEX_GROUP_CLOSE, /* }                                             */
    OPD_LATEX_BAR,         /* |                                             */
    OPD_LATEX_COMMA,       /* , ; \text{and} \text{or}, & in a matrix       */
    OPD_LATEX_ROW,         /* \\                                            */
    OPD_LATEX_RELATION,    /* op: = < > l (<=) g (>=) n (not equal) e (in)  */
    OPD_LATEX_UNION,
    OPD_LATEX_CONSTANT,    /* op: p (pi) o (infinity)                       */
    OPD_LATEX_FRACTION,    /* two groups follow                             */
    OPD_LATEX_ROOT,        /* [n] and a group follow                        */
    OPD_LATEX_SUBSCRIPT,   /* of a function: a group follows                */
    OPD_LATEX_MATRIX_OPEN,
    OPD_LATEX_MATRIX_CLOSE
} opd_latex_kind;

typedef enum opd_latex_function {
    OPD_LATEX_SIN, OPD_LATEX_COS, OPD_LATEX_TAN, OPD_LATEX_COT, OPD_LATEX_SEC, OPD_LATEX_CSC,
    OPD_LATEX_ASIN, OPD_LATEX_ACOS, OPD_LATEX_ATAN, OPD_LATEX_SINH, OPD_LATEX_COSH,
    OPD_LATEX_TANH, OPD_LATEX_LN, OPD_LATEX_LOG, OPD_LATEX_EXP
} opd_latex_function;

typedef struct opd_latex_token {
    uint8_t kind, op;
    uint16_t size;    /* of text        */
    const char *text; /* of a number    */
    uint64_t name;    /* hash of a name */
} opd_latex_token;

/* Ends with OPD_LATEX_END, which is not counted. */
typedef struct opd_latex {
    opd_latex_token tokens[OPD_LATEX_TOKENS_MAX + 1];
    size_t count;
} opd_latex;

/* Reads the text. False when it has too many tokens. */
bool opd_latex_read(const char *text, size_t size_bytes, opd_latex *out_latex);

#endif
