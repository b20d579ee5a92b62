-- What was granted of what was taken. A refund has one attempt for each capture that it is paid of.
CREATE TABLE refund (
    id TEXT PRIMARY KEY,
    payment TEXT NOT NULL REFERENCES payment (id),
    order_name TEXT NOT NULL,
    state TEXT NOT NULL,
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    refunded_minor BIGINT NOT NULL,
    reason TEXT NOT NULL,
    -- Empty if a person asked for it.
    saga TEXT NOT NULL,
    decline_code TEXT,
    created_at BIGINT NOT NULL,
    CHECK (0 <= refunded_minor AND refunded_minor <= amount_minor)
);
CREATE INDEX refund_of_payment ON refund (payment, created_at, id);
CREATE INDEX refund_by_time ON refund (created_at, id);

ALTER TABLE attempt ADD COLUMN refund TEXT REFERENCES refund (id);
