-- What every service with a database has: answers by request id, barriers of sagas, events on
-- their way out, sagas and leases. Times are microseconds since 1970, UTC.

-- The answer that a request id was given; the row is the first write of its transaction.
CREATE TABLE request_key (
    principal TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('RUNNING', 'DONE', 'REFUSED')),
    response BLOB,
    at BIGINT NOT NULL,
    PRIMARY KEY (principal, method, request_id)
);
CREATE INDEX request_key_by_age ON request_key (at);

-- What a saga had done here, or may no longer do: reason UNDO on op DO is a tombstone.
CREATE TABLE barrier (
    saga TEXT NOT NULL,
    step_key TEXT NOT NULL,
    op TEXT NOT NULL CHECK (op IN ('DO', 'UNDO')),
    reason TEXT NOT NULL CHECK (reason IN ('DO', 'UNDO')),
    command_id TEXT NOT NULL,
    result BLOB,
    at BIGINT NOT NULL,
    PRIMARY KEY (saga, step_key, op)
);
CREATE INDEX barrier_by_age ON barrier (at);

-- Events, written with what they tell of; the position in the log is given after the commit.
CREATE TABLE outbox (
    id IDENTITY,
    event_id TEXT NOT NULL UNIQUE,
    aggregate TEXT NOT NULL,
    seq BIGINT NOT NULL,
    type TEXT NOT NULL,
    headers BLOB NOT NULL,
    payload BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    position BIGINT UNIQUE,
    available_at BIGINT NOT NULL,
    published_at BIGINT,
    lease_owner TEXT,
    lease_until BIGINT,
    attempts BIGINT NOT NULL DEFAULT 0,
    parked_at BIGINT,
    last_error TEXT,
    UNIQUE (aggregate, seq)
);
CREATE INDEX outbox_without_position ON outbox (id) WHERE position IS NULL;
CREATE INDEX outbox_unpublished ON outbox (aggregate, seq) WHERE published_at IS NULL;

-- The next position of the log, and the fence of the sequencer that may give it.
CREATE TABLE log (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    next BIGINT NOT NULL,
    fence BIGINT NOT NULL
);
INSERT INTO log (id, next, fence) VALUES (1, 1, 0);

CREATE TABLE saga (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('RUNNING', 'COMPENSATING', 'DONE', 'COMPENSATED', 'STUCK', 'PAUSED')),
    step BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    data BLOB NOT NULL,
    definition TEXT NOT NULL,
    next_run_at BIGINT NOT NULL,
    deadline_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    lease_owner TEXT,
    lease_until BIGINT,
    fence BIGINT NOT NULL,
    reason TEXT,
    message TEXT,
    last_error TEXT,
    traceparent TEXT,
    created_at BIGINT NOT NULL,
    UNIQUE (kind, key)
);
CREATE INDEX saga_due ON saga (kind, next_run_at)
    WHERE state IN ('RUNNING', 'COMPENSATING', 'STUCK');

CREATE TABLE saga_step (
    saga TEXT NOT NULL REFERENCES saga (id),
    step_key TEXT NOT NULL,
    direction TEXT NOT NULL CHECK (direction IN ('DO', 'UNDO')),
    state TEXT NOT NULL CHECK (state IN ('INTENT', 'SENT', 'OK', 'FAILED', 'UNKNOWN')),
    command_id TEXT NOT NULL UNIQUE,
    request BLOB,
    reply BLOB,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    PRIMARY KEY (saga, step_key, direction)
);

-- Who may do what only one process at a time may do.
CREATE TABLE lease (
    name TEXT PRIMARY KEY,
    owner TEXT,
    until BIGINT NOT NULL,
    fence BIGINT NOT NULL
);
