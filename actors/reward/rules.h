/* rules.h - the rewards that are plain functions of a response and its label.
 *
 * math: math.h; 1 or 0.
 * dapo: the last "Answer:" line within the last 300 bytes and the label, both normalised as the
 *     Minerva evaluation does (Lewkowycz et al. 2022, appendix D), are the same text; 1 or -1.
 * f1: the harmonic mean of precision and recall of the words, after lower case and without ASCII
 *     punctuation and the articles (as SQuAD's evaluation does); 0..1. A "yes", "no" or "noanswer"
 *     counts only whole.
 * multiple choice (gpqa): the letter of the option that the response ends with; 1 or 0.
 *
 * With `boxed` only the content of the response's last \boxed{} is judged, as the seed's "boxed_"
 * prefix has it; a response without one is judged as an empty text.
 *
 * Only the last OPD_ANSWER_WINDOW_MAX bytes of either text are judged.
 * Invariants: bounded memory and work; any bytes legal. Thread: any; no state.
 */
#ifndef OPD_ACTORS_REWARD_RULES_H
#define OPD_ACTORS_REWARD_RULES_H

#include "actors/reward/answer.h"

typedef enum opd_reward_rule {
    OPD_REWARD_RULE_NONE, /* no judgement: 0 */
    OPD_REWARD_RULE_MATH,
    OPD_REWARD_RULE_DAPO,
    OPD_REWARD_RULE_F1,
    OPD_REWARD_RULE_CHOICE
} opd_reward_rule;

double opd_reward_judge(opd_reward_rule rule, bool boxed, opd_piece response, opd_piece label);

double opd_reward_dapo(opd_piece response, opd_piece label);
double opd_reward_f1(opd_piece response, opd_piece label);
double opd_reward_choice(opd_piece response, opd_piece label);

#endif
