-- How much of each part of a reservation has left, and how much of that came back.
ALTER TABLE reservation_line ADD COLUMN shipped BIGINT NOT NULL DEFAULT 0
    CHECK (shipped >= 0);
ALTER TABLE reservation_line ADD COLUMN returned BIGINT NOT NULL DEFAULT 0
    CHECK (returned >= 0);
