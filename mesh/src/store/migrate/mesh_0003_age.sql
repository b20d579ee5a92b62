-- Dead letters that were dealt with are deleted by their age.
CREATE INDEX dead_letter_ended ON dead_letter (updated_at) WHERE state <> 'PARKED';
