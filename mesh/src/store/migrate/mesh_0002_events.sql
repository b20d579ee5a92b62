-- What a service that takes in the events of others keeps: how far it came, and what it could not
-- take in; and what operators did here. Times are microseconds since 1970, UTC.

-- How far a consumer has read the log of a source; moved in the transaction of the effect.
CREATE TABLE cursor (
    consumer TEXT NOT NULL,
    source TEXT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (consumer, source)
);

-- Events that could not be taken in, and those of the same aggregate that wait behind them.
CREATE TABLE dead_letter (
    id TEXT PRIMARY KEY,
    consumer TEXT NOT NULL,
    source TEXT NOT NULL,
    position BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    aggregate TEXT NOT NULL,
    type TEXT NOT NULL,
    event BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('PARKED', 'REPLAYED', 'DISCARDED')),
    cause TEXT NOT NULL CHECK (cause IN ('PERMANENT', 'BUG', 'BEHIND')),
    error TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    actor TEXT,
    reason TEXT,
    UNIQUE (consumer, source, event_id)
);
CREATE INDEX dead_letter_parked ON dead_letter (consumer, source, aggregate, position)
    WHERE state = 'PARKED';

-- What operators did, and why; append only.
CREATE TABLE operator_action (
    id TEXT PRIMARY KEY,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    reason TEXT NOT NULL,
    at BIGINT NOT NULL
);
