-- What came to and left each warehouse. Movements are few beside orders, and kept as long as orders are.

CREATE TABLE IF NOT EXISTS stock_movements (
    movement_id  UUID                   COMMENT 'The movement; the same in PostgreSQL',
    merchant     LowCardinality(String) COMMENT 'The shop',
    sku          String                 COMMENT 'What was moved',
    warehouse    LowCardinality(String) COMMENT 'Where it came to or left',
    kind         LowCardinality(String) COMMENT 'receipt, opening, adjustment, count, transfer_out, transfer_in, dispatch, reconciliation, refused',
    quantity     Int64                  COMMENT 'Change of on_hand: positive came, negative left, 0 for a count that agreed and for what was refused; of a reconciliation what the history lacked',
    on_hand      Int64                  COMMENT 'Pieces in the warehouse afterwards',
    source_id    UUID                   COMMENT 'The receipt, request or order that caused it',
    reason       String                 COMMENT 'Why, in the requester''s words; with dispatch the order, with refused why not',
    requested_by LowCardinality(String) COMMENT 'Id of the API key, or the operator; empty where a courier''s report said that the pieces have left',
    moved_at     DateTime64(3, 'UTC')   COMMENT 'When it was moved' CODEC(Delta(8), ZSTD(1)),
    precedence   UInt64                 COMMENT 'Which batch wrote the movement: of two rows with one key the higher counts',
    ingested_at  DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') COMMENT 'When the row was stored' CODEC(Delta(8), ZSTD(1))
)
ENGINE = ReplacingMergeTree(precedence)
PARTITION BY toYYYYMM(moved_at)
ORDER BY (merchant, sku, warehouse, movement_id)
TTL toDateTime(moved_at) + INTERVAL 1096 DAY
SETTINGS auto_statistics_types = '', min_parts_to_merge_at_once = 16, ttl_only_drop_parts = 1
COMMENT 'One row per movement of stock; read it through v_stock_movements';
