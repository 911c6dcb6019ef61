/* certs.h - keys and certificates for tests, made when the test runs and gone with it.
 *
 * A folder of the usual cast, as NAME.pem and NAME.key (P-256, PEM):
 *   ca        an authority; signs server, client, expired, early, elsewhere
 *   server    for localhost, 127.0.0.1 and ::1     client     of a client
 *   expired   as server, ended yesterday           early      as server, begins tomorrow
 *   elsewhere for elsewhere.example only           other      an authority nobody trusts
 *   stray     as server, signed by other           self       as server, signed by itself
 *   locked.key  server's key under a passphrase    chain.pem  server.pem and its key in one file
 * Thread: the test's.
 */
#ifndef OPD_TESTS_SUPPORT_CERTS_H
#define OPD_TESTS_SUPPORT_CERTS_H

typedef struct certs {
    char folder[64];
    char paths[4][128]; /* of the last four certs_path */
    unsigned next;
} certs;

/* Makes the folder and all in it; removes it. */
void certs_init(certs *c);
void certs_fini(certs *c);

/* The path of a file in the folder; valid until the fourth call after. */
const char *certs_path(certs *c, const char *file);

#endif
