-- What customers are told, where it goes, and what they do not want. Times are microseconds
-- since 1970, UTC.

-- What is known of an order: told by its own events, needed by those of its shipments. A row
-- without an address holds the place of what is not known yet.
CREATE TABLE recipient (
    order_id TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    -- A protobuf: read and written whole.
    lines BLOB NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX recipient_by_age ON recipient (updated_at);

CREATE TABLE notification (
    id TEXT PRIMARY KEY,
    event_id TEXT NOT NULL,
    channel TEXT NOT NULL CHECK (channel IN ('MAIL')),
    -- `users/{uuid}`: who is told, wherever their mail goes.
    recipient TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN (
        'ORDER_RECEIVED', 'ORDER_CONFIRMED', 'ORDER_REJECTED', 'ORDER_CANCELLED', 'ORDER_EXPIRED',
        'SHIPMENT_DISPATCHED', 'SHIPMENT_DELIVERED'
    )),
    order_id TEXT NOT NULL,
    shipment_id TEXT,
    state TEXT NOT NULL CHECK (state IN ('WAITING', 'PENDING', 'SENT', 'SUPPRESSED', 'FAILED')),
    address TEXT NOT NULL,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    message_id TEXT NOT NULL,
    problem TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    happened_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    sent_at BIGINT,
    traceparent TEXT NOT NULL,
    -- Set while it is to be sent. Whoever begins to send it moves it beyond the time that this
    -- takes: so it is nobody else's until then.
    next_try_at BIGINT,
    UNIQUE (event_id, channel, recipient),
    CHECK ((state = 'PENDING') = (next_try_at IS NOT NULL)),
    CHECK ((state = 'SENT') = (sent_at IS NOT NULL)),
    CHECK (address <> '' OR state IN ('WAITING', 'FAILED'))
);
-- An order is confirmed by one mail, however many events say so.
CREATE UNIQUE INDEX notification_one_confirmation ON notification (order_id)
    WHERE kind = 'ORDER_CONFIRMED';
CREATE INDEX notification_due ON notification (next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX notification_waiting ON notification (order_id) WHERE state = 'WAITING';
CREATE INDEX notification_by_recipient ON notification (recipient, id);
CREATE INDEX notification_by_order ON notification (order_id, id);
CREATE INDEX notification_by_age ON notification (created_at);

CREATE TABLE preferences (
    user_id TEXT PRIMARY KEY,
    revision BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE TABLE muted (
    recipient TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind <> 'ORDER_CONFIRMED'),
    PRIMARY KEY (recipient, kind)
);
