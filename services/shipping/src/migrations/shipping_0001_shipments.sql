-- What is sent to customers. Times are microseconds since 1970, UTC.
CREATE TABLE shipment (
    id TEXT NOT NULL PRIMARY KEY,
    order_name TEXT NOT NULL,
    customer TEXT NOT NULL,
    location TEXT NOT NULL,
    ship_to TEXT,
    state TEXT NOT NULL,
    cancel_reason TEXT,
    carrier TEXT,
    tracking TEXT,
    traceparent TEXT,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE INDEX shipment_of_order ON shipment (order_name, created_at, id);

CREATE INDEX shipment_of_customer ON shipment (customer, created_at, id);

CREATE INDEX shipment_by_time ON shipment (created_at, id);

-- `place` keeps the order of the lines.
CREATE TABLE shipment_line (
    shipment TEXT NOT NULL REFERENCES shipment (id),
    place BIGINT NOT NULL,
    line TEXT NOT NULL,
    variant TEXT NOT NULL,
    quantity BIGINT NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (shipment, place),
    UNIQUE (shipment, line)
);

-- What the carrier was asked. The reference is the key that it knows it by.
CREATE TABLE attempt (
    id TEXT NOT NULL PRIMARY KEY,
    shipment TEXT NOT NULL REFERENCES shipment (id),
    place BIGINT NOT NULL,
    kind TEXT NOT NULL,
    reference TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    tries BIGINT NOT NULL,
    next_try_at BIGINT,
    decline_code TEXT,
    lease_owner TEXT,
    lease_until BIGINT,
    created_at BIGINT NOT NULL,
    UNIQUE (shipment, place)
);

-- What is looked for.
CREATE INDEX attempt_due ON attempt (next_try_at) WHERE next_try_at IS NOT NULL;

-- What the carrier reported, taken in once.
CREATE TABLE shipment_sign (
    shipment TEXT NOT NULL REFERENCES shipment (id),
    event_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    occurred_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (shipment, event_id)
);
