-- What was taken, and how much of it was given back.
CREATE TABLE capture (
    id TEXT PRIMARY KEY,
    hold TEXT NOT NULL REFERENCES hold (id),
    amount_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    refunded_minor BIGINT NOT NULL,
    CHECK (0 <= refunded_minor AND refunded_minor <= amount_minor)
);
