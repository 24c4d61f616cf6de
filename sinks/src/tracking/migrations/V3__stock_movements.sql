-- The history of what is on hand, and pieces that are set aside for a flash sale or missing.

ALTER TABLE stock_levels ADD COLUMN set_aside bigint NOT NULL DEFAULT 0;
ALTER TABLE stock_levels ADD COLUMN missing bigint NOT NULL DEFAULT 0;

COMMENT ON TABLE stock_levels IS
    'Stock as it stands; available = on_hand - reserved - allocated - set_aside - missing';
COMMENT ON COLUMN stock_levels.missing IS 'Not found by a count that was refused, and not sold until one is accepted';
COMMENT ON COLUMN stock_levels.set_aside IS 'Free, but only for a flash sale';

CREATE TABLE stock_movements (
    movement_id  uuid        NOT NULL PRIMARY KEY,
    merchant     text        NOT NULL,
    sku          text        NOT NULL,
    warehouse    text        NOT NULL,
    kind         text        NOT NULL,
    quantity     bigint      NOT NULL,
    on_hand      bigint      NOT NULL,
    source_id    uuid        NOT NULL,
    reason       text        NOT NULL,
    requested_by text        NOT NULL,
    moved_at     timestamptz NOT NULL
);

CREATE INDEX stock_movements_of_a_sku ON stock_movements (merchant, sku, moved_at);

COMMENT ON TABLE stock_movements IS 'What came to and left each warehouse: the sum of quantity is what is on hand';
COMMENT ON COLUMN stock_movements.kind IS 'receipt, opening, adjustment, count, transfer_out, transfer_in, dispatch, reconciliation, refused';
COMMENT ON COLUMN stock_movements.quantity IS 'Change of on_hand; 0 for a count that agreed and for what was refused; of a reconciliation what the history lacked';
COMMENT ON COLUMN stock_movements.source_id IS 'The receipt, request or order that caused it';
COMMENT ON COLUMN stock_movements.reason IS 'Why, in the requester''s words; with dispatch the order, with refused why not';
COMMENT ON COLUMN stock_movements.requested_by IS 'Id of the API key, or the operator; empty where a courier''s report said that the pieces have left';
