/* core/codec/decimal.h - numbers as decimal text, fast: what answers of megabytes are made of.
 *
 * Floats come out as the shortest decimal that lies nearer to them than to any other float, so that every
 * correct reader of floats gets the same bits back, and every reader of doubles that rounds them to floats (for
 * this one float has a digit more); locale plays no part.
 * Thread: any. Memory: the caller's.
 */
#ifndef OPD_CORE_CODEC_DECIMAL_H
#define OPD_CORE_CODEC_DECIMAL_H

#include <stddef.h>
#include <stdint.h>

/* Room for a number, of which at most 20 bytes stay: the rest may be overwritten (copies of a fixed size are
 * quicker). */
enum { OPD_DECIMAL_ROOM = 32 };

/* Writes a finite float at out[OPD_DECIMAL_ROOM] as JSON has numbers: "-0.25", "3", "1.5e-07"; positional from
 * 1e-4 to below 1e9, else with an exponent. Returns how many characters; no NUL follows. */
size_t opd_decimal_float(float value, char *out);

/* The same for a whole number. */
size_t opd_decimal_int64(int64_t value, char *out);

#endif
