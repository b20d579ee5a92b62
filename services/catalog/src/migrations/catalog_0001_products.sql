-- Products; deleted ones stay, orders name their variants.
CREATE TABLE product (
    id TEXT NOT NULL PRIMARY KEY,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT NULL,
    revision BIGINT NOT NULL
);

CREATE TABLE variant (
    sku TEXT NOT NULL PRIMARY KEY,
    product TEXT NOT NULL REFERENCES product (id),
    title TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);

CREATE INDEX variant_product ON variant (product, sku);

-- Every price that a variant ever had: appended, never changed. The one that holds is the last
-- that has begun; of two that begin together, the one that was set later.
CREATE TABLE price (
    id TEXT NOT NULL PRIMARY KEY,
    sku TEXT NOT NULL REFERENCES variant (sku),
    minor BIGINT NOT NULL CHECK (minor >= 0),
    currency TEXT NOT NULL,
    effective_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE INDEX price_in_force ON price (sku, effective_at, id);
