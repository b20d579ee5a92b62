-- Orders go on to the doorstep: more states, what was taken and paid back, and parcels. A CHECK
-- cannot be changed in SQLite, so the tables are written anew, in both databases alike.
CREATE TABLE orders_2 (
    id TEXT PRIMARY KEY,
    customer TEXT NOT NULL,
    customer_email TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN (
        'PENDING', 'ACTION_REQUIRED', 'CONFIRMED', 'CANCELLING', 'REJECTED', 'CANCELLED',
        'EXPIRED', 'COMPLETED'
    )),
    payment_state TEXT NOT NULL CHECK (payment_state IN (
        'UNPAID', 'AUTHORIZING', 'AUTHORIZED', 'IN_DOUBT', 'VOIDED', 'FAILED', 'CAPTURED',
        'PARTIALLY_CAPTURED', 'REFUNDED', 'PARTIALLY_REFUNDED', 'OVERCHARGED', 'CHARGED_BACK'
    )),
    fulfillment_state TEXT NOT NULL CHECK (fulfillment_state IN (
        'UNFULFILLED', 'BACKORDERED', 'PARTIALLY_SHIPPED', 'SHIPPED', 'PARTIALLY_DELIVERED',
        'DELIVERED', 'PARTIALLY_RETURNED', 'RETURNED'
    )),
    payment_attempt TEXT NOT NULL CHECK (payment_attempt IN (
        'NONE', 'OPEN', 'UNKNOWN', 'SUCCEEDED', 'FAILED'
    )),
    -- Alive and not taken.
    authorized_minor BIGINT NOT NULL,
    captured_minor BIGINT NOT NULL DEFAULT 0,
    refunded_minor BIGINT NOT NULL DEFAULT 0,
    payment_voided BOOLEAN NOT NULL,
    currency TEXT NOT NULL,
    items_minor BIGINT NOT NULL,
    discount_minor BIGINT NOT NULL,
    shipping_minor BIGINT NOT NULL,
    tax_minor BIGINT NOT NULL,
    total_minor BIGINT NOT NULL,
    expected_minor BIGINT,
    quoted BOOLEAN NOT NULL,
    -- JSON, these four: read and written whole, never searched.
    ship_to TEXT,
    rejection TEXT,
    pending TEXT,
    parcels TEXT,
    payment_method TEXT NOT NULL,
    stock_policy TEXT NOT NULL CHECK (stock_policy IN ('ALL_OR_NOTHING', 'PARTIAL_WITH_CONSENT')),
    confirm_by BIGINT NOT NULL,
    placed_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    confirmed_at BIGINT,
    request_id TEXT,
    revision BIGINT NOT NULL,
    UNIQUE (customer, request_id),
    CHECK (items_minor - discount_minor + shipping_minor + tax_minor = total_minor),
    CHECK (captured_minor >= refunded_minor AND refunded_minor >= 0)
);

INSERT INTO orders_2 (
    id, customer, customer_email, state, payment_state, fulfillment_state, payment_attempt,
    authorized_minor, payment_voided, currency, items_minor, discount_minor, shipping_minor,
    tax_minor, total_minor, expected_minor, quoted, ship_to, rejection, pending, payment_method,
    stock_policy, confirm_by, placed_at, updated_at, confirmed_at, request_id, revision
) SELECT
    id, customer, customer_email, state, payment_state, fulfillment_state, payment_attempt,
    authorized_minor, payment_voided, currency, items_minor, discount_minor, shipping_minor,
    tax_minor, total_minor, expected_minor, quoted, ship_to, rejection, pending, payment_method,
    stock_policy, confirm_by, placed_at, updated_at, confirmed_at, request_id, revision
FROM orders;

CREATE TABLE order_line_2 (
    order_id TEXT NOT NULL REFERENCES orders_2 (id),
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

INSERT INTO order_line_2 SELECT
    order_id, number, variant, title, unit_price_minor, price_version, discount_minor, tax_minor,
    total_minor, ordered, cancelled, open, shipped, delivered, returned, backordered
FROM order_line;

CREATE TABLE order_event_2 (
    order_id TEXT NOT NULL REFERENCES orders_2 (id),
    revision BIGINT NOT NULL,
    type TEXT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    state TEXT NOT NULL,
    payment_state TEXT NOT NULL,
    fulfillment_state TEXT NOT NULL DEFAULT 'UNFULFILLED',
    note TEXT NOT NULL,
    PRIMARY KEY (order_id, revision)
);

INSERT INTO order_event_2 (order_id, revision, type, at, actor, state, payment_state, note)
SELECT order_id, revision, type, at, actor, state, payment_state, note FROM order_event;

CREATE TABLE cancellation_2 (
    order_id TEXT NOT NULL REFERENCES orders_2 (id),
    revision BIGINT NOT NULL,
    reason TEXT NOT NULL CHECK (reason IN (
        'CUSTOMER_REQUEST', 'DUPLICATE', 'FRAUD', 'NOT_SHIPPABLE'
    )),
    actor TEXT NOT NULL,
    note TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (order_id, revision)
);

INSERT INTO cancellation_2 SELECT order_id, revision, reason, actor, note, at FROM cancellation;

DROP TABLE cancellation;
DROP TABLE order_event;
DROP TABLE order_line;
DROP TABLE orders;
ALTER TABLE orders_2 RENAME TO orders;
ALTER TABLE order_line_2 RENAME TO order_line;
ALTER TABLE order_event_2 RENAME TO order_event;
ALTER TABLE cancellation_2 RENAME TO cancellation;
CREATE INDEX orders_by_customer ON orders (customer, id);
