-- Orders and their lines. Money is in minor units of the order's currency, times are
-- microseconds since 1970, UTC.
CREATE TABLE orders (
    id TEXT PRIMARY KEY,
    customer TEXT NOT NULL,
    customer_email TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN (
        'PENDING', 'ACTION_REQUIRED', 'CONFIRMED', 'CANCELLING', 'REJECTED', 'CANCELLED', 'EXPIRED'
    )),
    payment_state TEXT NOT NULL CHECK (payment_state IN (
        'UNPAID', 'AUTHORIZING', 'AUTHORIZED', 'IN_DOUBT', 'VOIDED', 'FAILED'
    )),
    fulfillment_state TEXT NOT NULL CHECK (fulfillment_state IN ('UNFULFILLED')),
    payment_attempt TEXT NOT NULL CHECK (payment_attempt IN (
        'NONE', 'OPEN', 'UNKNOWN', 'SUCCEEDED', 'FAILED'
    )),
    authorized_minor BIGINT NOT NULL,
    payment_voided BOOLEAN NOT NULL,
    currency TEXT NOT NULL,
    items_minor BIGINT NOT NULL,
    discount_minor BIGINT NOT NULL,
    shipping_minor BIGINT NOT NULL,
    tax_minor BIGINT NOT NULL,
    total_minor BIGINT NOT NULL,
    expected_minor BIGINT,
    quoted BOOLEAN NOT NULL,
    -- JSON, these three: read and written whole, never searched.
    ship_to TEXT,
    rejection TEXT,
    pending TEXT,
    payment_method TEXT NOT NULL,
    stock_policy TEXT NOT NULL CHECK (stock_policy IN ('ALL_OR_NOTHING', 'PARTIAL_WITH_CONSENT')),
    confirm_by BIGINT NOT NULL,
    placed_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    confirmed_at BIGINT,
    request_id TEXT,
    revision BIGINT NOT NULL,
    -- The request keys are forgotten one day; one order for one request is for ever.
    UNIQUE (customer, request_id),
    CHECK (items_minor - discount_minor + shipping_minor + tax_minor = total_minor)
);
CREATE INDEX orders_by_customer ON orders (customer, id);

CREATE TABLE order_line (
    order_id TEXT NOT NULL REFERENCES orders (id),
    number BIGINT NOT NULL,
    variant TEXT NOT NULL,
    title TEXT NOT NULL,
    unit_price_minor BIGINT NOT NULL,
    price_version TEXT NOT NULL,
    discount_minor BIGINT NOT NULL,
    tax_minor BIGINT NOT NULL,
    total_minor BIGINT NOT NULL,
    ordered BIGINT NOT NULL,
    cancelled BIGINT NOT NULL,
    open BIGINT NOT NULL,
    shipped BIGINT NOT NULL DEFAULT 0,
    delivered BIGINT NOT NULL DEFAULT 0,
    returned BIGINT NOT NULL DEFAULT 0,
    backordered BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, number),
    CHECK (ordered = cancelled + open + shipped),
    CHECK (cancelled >= 0 AND open >= 0 AND shipped >= delivered),
    CHECK (delivered >= returned AND returned >= 0),
    CHECK (backordered >= 0 AND backordered <= open),
    CHECK (total_minor = unit_price_minor * (ordered - cancelled) - discount_minor + tax_minor)
);

-- What happened, one row for each revision: the trail that is kept when the outbox is cleaned.
CREATE TABLE order_event (
    order_id TEXT NOT NULL REFERENCES orders (id),
    revision BIGINT NOT NULL,
    type TEXT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    state TEXT NOT NULL,
    payment_state TEXT NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (order_id, revision)
);

-- Who called an order off, and why. Rows are only ever added.
CREATE TABLE cancellation (
    order_id TEXT NOT NULL REFERENCES orders (id),
    revision BIGINT NOT NULL,
    reason TEXT NOT NULL CHECK (reason IN ('CUSTOMER_REQUEST', 'DUPLICATE', 'FRAUD')),
    actor TEXT NOT NULL,
    note TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (order_id, revision)
);
