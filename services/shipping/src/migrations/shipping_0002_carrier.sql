-- The books of the built-in carrier: no statement touches these tables and ours. What a parcel is
-- booked under is its customer's key, never its own.
CREATE TABLE carrier_parcel (
    reference TEXT NOT NULL PRIMARY KEY,
    tracking TEXT NOT NULL UNIQUE,
    stage TEXT NOT NULL,
    faults TEXT NOT NULL,
    due_at BIGINT,
    booked_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);

CREATE INDEX carrier_parcel_due ON carrier_parcel (due_at) WHERE due_at IS NOT NULL;

-- What happened to parcels: appended. Only whether the customer knows is written later.
CREATE TABLE carrier_event (
    id TEXT NOT NULL PRIMARY KEY,
    reference TEXT NOT NULL REFERENCES carrier_parcel (reference),
    kind TEXT NOT NULL,
    at BIGINT NOT NULL,
    acknowledged_at BIGINT,
    UNIQUE (reference, kind)
);

CREATE INDEX carrier_event_news ON carrier_event (id) WHERE acknowledged_at IS NULL;
