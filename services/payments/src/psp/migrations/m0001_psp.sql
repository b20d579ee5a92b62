-- A provider's books. Times are microseconds since 1970, UTC; money is minor units.
CREATE TABLE hold (
    id TEXT PRIMARY KEY,
    reference TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    token TEXT NOT NULL,
    status TEXT NOT NULL,
    approved BOOLEAN NOT NULL,
    authorized_minor BIGINT NOT NULL,
    captured_minor BIGINT NOT NULL,
    decline_code TEXT,
    action TEXT UNIQUE,
    expires_at BIGINT NOT NULL
);

-- What was asked, under which key, and the answer. The key is taken away when it is forgotten.
CREATE TABLE operation (
    id IDENTITY,
    kind TEXT NOT NULL,
    reference TEXT NOT NULL,
    hold TEXT,
    idempotency_key TEXT UNIQUE,
    fingerprint BLOB NOT NULL,
    status_code BIGINT NOT NULL,
    answer TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX operation_by_reference ON operation (reference, id);

CREATE TABLE ledger (
    id IDENTITY,
    reference TEXT NOT NULL,
    hold TEXT NOT NULL,
    movement TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    fee_minor BIGINT NOT NULL,
    at BIGINT NOT NULL
);
