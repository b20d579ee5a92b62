-- Where stock lies.
CREATE TABLE location (
    id TEXT NOT NULL PRIMARY KEY,
    display_name TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- The counters. The last check is what no oversell means: it holds whatever the code does.
CREATE TABLE stock (
    sku TEXT NOT NULL,
    location TEXT NOT NULL REFERENCES location (id),
    on_hand BIGINT NOT NULL CHECK (on_hand >= 0),
    held BIGINT NOT NULL CHECK (held >= 0),
    allocated BIGINT NOT NULL CHECK (allocated >= 0),
    backorder_limit BIGINT NOT NULL CHECK (backorder_limit >= 0),
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (sku, location),
    CHECK (on_hand - held - allocated >= -backorder_limit)
);

CREATE INDEX stock_location ON stock (location, sku);

-- What is kept for orders. With a saga, its commands alone change it.
CREATE TABLE reservation (
    id TEXT NOT NULL PRIMARY KEY,
    order_id TEXT NULL,
    saga TEXT NULL,
    state TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    overdue_at BIGINT NULL,
    committed_at BIGINT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE INDEX reservation_order ON reservation (order_id, id);

CREATE INDEX reservation_expiry ON reservation (expires_at) WHERE state = 'HELD';

CREATE INDEX reservation_overdue ON reservation (overdue_at) WHERE state = 'HELD';

-- What each line of a reservation takes from each location; `part` keeps the order of the lines.
CREATE TABLE reservation_line (
    reservation TEXT NOT NULL REFERENCES reservation (id),
    part BIGINT NOT NULL,
    line TEXT NOT NULL,
    sku TEXT NOT NULL,
    location TEXT NOT NULL,
    quantity BIGINT NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (reservation, part),
    UNIQUE (reservation, line, location)
);

-- Why each counter is what it is: appended, never changed.
CREATE TABLE movement (
    id TEXT NOT NULL PRIMARY KEY,
    sku TEXT NOT NULL,
    location TEXT NOT NULL,
    kind TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    reason TEXT NULL,
    note TEXT NOT NULL,
    cause TEXT NULL,
    actor TEXT NOT NULL,
    at BIGINT NOT NULL
);

CREATE INDEX movement_stock ON movement (sku, location, id);

CREATE INDEX movement_cause ON movement (cause, id);
