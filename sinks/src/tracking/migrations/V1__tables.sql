-- Tables of the sink `tracking`. An order is known by (order_id, accepted_at): the same idempotency
-- key may name another order after its published lifetime. Money is in minor units of its currency.
-- Room is left in pages whose rows change, so that an update stays in its page and touches no index.

CREATE TABLE orders (
    order_id    uuid        NOT NULL,
    accepted_at timestamptz NOT NULL,
    merchant    text        NOT NULL,
    status      text        NOT NULL,
    reason      text        NOT NULL,
    version     integer     NOT NULL,
    term        bigint      NOT NULL,
    sequence    bigint      NOT NULL,
    currency    text        NOT NULL,
    total_minor bigint      NOT NULL,
    line_count  integer     NOT NULL,
    customer_id text,
    ordered_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    destination jsonb,
    attributes  jsonb,
    PRIMARY KEY (order_id, accepted_at)
) WITH (fillfactor = 60);

-- Documents that are never searched: statistics of them would be half of what ANALYZE costs.
ALTER TABLE orders
    ALTER COLUMN destination SET STATISTICS 0,
    ALTER COLUMN attributes SET STATISTICS 0;

COMMENT ON TABLE orders IS 'Each order as it stands: the newest version of its status';
COMMENT ON COLUMN orders.accepted_at IS 'Append time of the order''s first record; with order_id its identity';
COMMENT ON COLUMN orders.reason IS 'Machine-readable cause of the status, e.g. sold_out; may be empty';
COMMENT ON COLUMN orders.version IS 'Version of the status, gapless from 1';
COMMENT ON COLUMN orders.term IS 'With sequence: the batch that wrote the version; the higher counts';
COMMENT ON COLUMN orders.customer_id IS 'The shop''s customer; null for a guest';
COMMENT ON COLUMN orders.ordered_at IS 'The shop''s own time of the order';
COMMENT ON COLUMN orders.updated_at IS 'When the status changed last';
COMMENT ON COLUMN orders.destination IS 'Name, street, city, postcode, country; null until version 1 is seen';

CREATE TABLE order_lines (
    order_id         uuid        NOT NULL,
    accepted_at      timestamptz NOT NULL,
    line             integer     NOT NULL,
    sku              text        NOT NULL,
    quantity         integer     NOT NULL,
    unit_price_minor bigint      NOT NULL,
    PRIMARY KEY (order_id, accepted_at, line)
);

COMMENT ON TABLE order_lines IS 'What was ordered; the same SKU may stand in several lines';

CREATE TABLE order_events (
    order_id    uuid        NOT NULL,
    accepted_at timestamptz NOT NULL,
    version     integer     NOT NULL,
    merchant    text        NOT NULL,
    status      text        NOT NULL,
    reason      text        NOT NULL,
    occurred_at timestamptz NOT NULL,
    term        bigint      NOT NULL,
    sequence    bigint      NOT NULL,
    refusals    jsonb,
    PRIMARY KEY (order_id, accepted_at, version)
);

COMMENT ON TABLE order_events IS 'Every change of every order''s status, in versions from 1';
COMMENT ON COLUMN order_events.refusals IS 'With rejected: line, sku, requested, available, reason of each line refused';

CREATE TABLE consignments (
    order_id        uuid        NOT NULL,
    accepted_at     timestamptz NOT NULL,
    version         integer     NOT NULL,
    courier         text        NOT NULL,
    consignment_id  text        NOT NULL,
    tracking_number text        NOT NULL,
    price_minor     bigint      NOT NULL,
    currency        text        NOT NULL,
    promised_at     timestamptz NOT NULL,
    attempt         integer     NOT NULL,
    term            bigint      NOT NULL,
    sequence        bigint      NOT NULL,
    PRIMARY KEY (order_id, accepted_at, version)
);

COMMENT ON TABLE consignments IS 'Which courier took an order, by the version that said so';
COMMENT ON COLUMN consignments.attempt IS 'Which courier in turn: more than 1 means that others failed';

CREATE TABLE stock_levels (
    merchant   text        NOT NULL,
    sku        text        NOT NULL,
    warehouse  text        NOT NULL,
    version    bigint      NOT NULL,
    on_hand    bigint      NOT NULL,
    reserved   bigint      NOT NULL,
    allocated  bigint      NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (merchant, sku, warehouse)
) WITH (fillfactor = 50);

COMMENT ON TABLE stock_levels IS 'Stock as it stands; available = on_hand - reserved - allocated';

CREATE TABLE order_repeats (
    order_id         uuid        NOT NULL,
    accepted_at      timestamptz NOT NULL,
    merchant         text        NOT NULL,
    kind             text        NOT NULL,
    fingerprint      uuid        NOT NULL,
    repeated_at      timestamptz NOT NULL,
    source_partition integer     NOT NULL,
    source_offset    bigint      NOT NULL,
    PRIMARY KEY (source_partition, source_offset)
);

COMMENT ON TABLE order_repeats IS 'Later records under an order''s idempotency key: duplicate (same payload) or conflict (another)';
COMMENT ON COLUMN order_repeats.source_offset IS 'Where the later record stands in topic orders';

CREATE TABLE sink_offsets (
    sink        text    NOT NULL,
    topic       text    NOT NULL,
    "partition" integer NOT NULL,
    next_offset bigint  NOT NULL,
    PRIMARY KEY (sink, topic, "partition")
) WITH (fillfactor = 10);

COMMENT ON TABLE sink_offsets IS 'Records before next_offset are in these tables; moves in the same transaction as they';
