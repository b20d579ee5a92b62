-- What orders are paid with. Times are microseconds since 1970, UTC; money is minor units.
CREATE TABLE payment (
    id TEXT PRIMARY KEY,
    order_name TEXT NOT NULL,
    customer TEXT NOT NULL,
    state TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    method TEXT NOT NULL,
    authorized_minor BIGINT NOT NULL,
    captured_minor BIGINT NOT NULL,
    refunded_minor BIGINT NOT NULL,
    voided_at BIGINT,
    authorization_expires_at BIGINT,
    action_url TEXT,
    decline_code TEXT,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CHECK (0 <= refunded_minor AND refunded_minor <= captured_minor
        AND captured_minor <= authorized_minor AND authorized_minor <= amount_minor)
);
-- One payment per order. A payment that was voided before it came to be has no order.
CREATE UNIQUE INDEX payment_of_order ON payment (order_name) WHERE order_name <> '';
CREATE INDEX payment_of_customer ON payment (customer, id);

-- What the provider was asked. The key belongs to one amount for ever.
CREATE TABLE attempt (
    id TEXT PRIMARY KEY,
    payment TEXT NOT NULL REFERENCES payment (id),
    place BIGINT NOT NULL,
    kind TEXT NOT NULL,
    n BIGINT NOT NULL,
    reference TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    last BOOLEAN NOT NULL,
    method TEXT NOT NULL,
    target TEXT,
    provider_id TEXT,
    decline_code TEXT,
    retriable BOOLEAN NOT NULL,
    action_url TEXT,
    tries BIGINT NOT NULL,
    next_try_at BIGINT,
    evidence TEXT,
    lease_owner TEXT,
    lease_until BIGINT,
    created_at BIGINT NOT NULL,
    UNIQUE (payment, place)
);
-- What the resolver looks for.
CREATE INDEX attempt_due ON attempt (next_try_at) WHERE next_try_at IS NOT NULL;

-- Double entry, append only. The reference is the provider's, too.
CREATE TABLE ledger_entry (
    id TEXT PRIMARY KEY,
    payment TEXT NOT NULL REFERENCES payment (id),
    reference TEXT NOT NULL,
    movement TEXT NOT NULL,
    account TEXT NOT NULL,
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    at BIGINT NOT NULL,
    -- An attempt moves money once, whoever brings its outcome home, and however often.
    UNIQUE (reference, movement, account)
);
CREATE INDEX ledger_of_payment ON ledger_entry (payment, id);
