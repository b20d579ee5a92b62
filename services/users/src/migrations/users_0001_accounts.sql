-- Accounts. `email_key` is the address in lower case; it is kept while a deleted account can
-- be brought back, and gone once its personal data is erased. `roles` is sorted, comma between.
CREATE TABLE account (
    id TEXT NOT NULL PRIMARY KEY,
    display_name TEXT NOT NULL,
    email TEXT NOT NULL,
    email_key TEXT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    roles TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('ACTIVE', 'DISABLED', 'DELETED')),
    order_limit_minor BIGINT NULL CHECK (order_limit_minor >= 0),
    order_limit_currency TEXT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT NULL,
    erased_at BIGINT NULL,
    revision BIGINT NOT NULL,
    CHECK ((state = 'DELETED') = (deleted_at IS NOT NULL)),
    CHECK (erased_at IS NULL OR deleted_at IS NOT NULL),
    CHECK ((email_key IS NULL) = (erased_at IS NOT NULL)),
    CHECK ((order_limit_minor IS NULL) = (order_limit_currency IS NULL))
);

-- What is to be erased, oldest first.
CREATE INDEX account_deleted ON account (deleted_at) WHERE deleted_at IS NOT NULL AND erased_at IS NULL;

-- Keys that sign tokens; `pkcs8` is secret.
CREATE TABLE signing_key (
    generation BIGINT NOT NULL PRIMARY KEY,
    pkcs8 BLOB NOT NULL,
    active_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

-- Services that sign in; their secrets are random, so a plain SHA-256 of one tells nothing.
CREATE TABLE client (
    name TEXT NOT NULL PRIMARY KEY,
    secret_hash BLOB NOT NULL,
    updated_at BIGINT NOT NULL
);

-- One row a sign-in; every refresh token that descends from it ends with it.
CREATE TABLE refresh_family (
    id TEXT NOT NULL PRIMARY KEY,
    account TEXT NOT NULL REFERENCES account (id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT NULL
);

CREATE INDEX refresh_family_account ON refresh_family (account) WHERE revoked_at IS NULL;
CREATE INDEX refresh_family_expires ON refresh_family (expires_at);

-- Refresh tokens by their SHA-256; used ones stay, so that a second use is noticed.
CREATE TABLE refresh_token (
    hash TEXT NOT NULL PRIMARY KEY,
    family TEXT NOT NULL REFERENCES refresh_family (id) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL,
    used_at BIGINT NULL
);

CREATE INDEX refresh_token_family ON refresh_token (family);

-- Wrong passwords, by the SHA-256 of the address that was given, whether it exists or not.
CREATE TABLE sign_in_failure (
    address TEXT NOT NULL PRIMARY KEY,
    failures BIGINT NOT NULL,
    since BIGINT NOT NULL
);

CREATE INDEX sign_in_failure_since ON sign_in_failure (since);
