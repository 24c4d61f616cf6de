-- The sink `billing`: a ledger by double entry. Money is in minor units of its currency.

CREATE TABLE ledger_accounts (
    account text PRIMARY KEY,
    kind    text NOT NULL CHECK (kind IN ('asset', 'income')),
    meaning text NOT NULL
);

COMMENT ON TABLE ledger_accounts IS 'The chart of accounts';

INSERT INTO ledger_accounts VALUES
    ('clearing', 'asset', 'Money that payment providers have taken for us and owe us; one per provider'),
    ('customers', 'asset', 'What customers owe; a credit balance is what they have paid in advance or will get back'),
    ('revenue', 'income', 'Orders handed to a courier, at their totals'),
    ('returns', 'income', 'Less revenue: orders that were handed over and given up or came back');

-- A row is an entry with both of its sides: one amount goes from one account to another, of the same merchant, in the same
-- currency. So debits and credits are equal in every entry, and no writer can make them differ. The key says what may
-- happen once: a payment is captured and refunded once, an order is sold once until it comes back.
CREATE TABLE ledger_entries (
    order_id     uuid        NOT NULL,
    accepted_at  timestamptz NOT NULL,
    kind         text        NOT NULL,
    turn         integer     NOT NULL CHECK (turn >= 0),
    method       integer     NOT NULL,
    reference    text        NOT NULL,
    version      integer     NOT NULL CHECK (version > 0),
    merchant     text        NOT NULL,
    debit        text        NOT NULL REFERENCES ledger_accounts,
    credit       text        NOT NULL REFERENCES ledger_accounts,
    amount_minor bigint      NOT NULL CHECK (amount_minor > 0),
    currency     text        NOT NULL,
    provider     text,
    occurred_at  timestamptz NOT NULL,
    PRIMARY KEY (order_id, accepted_at, kind, turn, method, reference),
    CONSTRAINT accounts_of_the_kind CHECK ((kind, debit, credit) IN (
        ('capture', 'clearing', 'customers'),
        ('refund', 'customers', 'clearing'),
        ('sale', 'customers', 'revenue'),
        ('return', 'returns', 'customers'),
        ('resale', 'customers', 'returns'))),
    CONSTRAINT payment_of_captures_and_refunds CHECK (CASE WHEN kind IN ('capture', 'refund')
        THEN method > 0 AND provider IS NOT NULL AND turn = 0
        ELSE method = 0 AND provider IS NULL AND reference = '' END)
);

-- Statements of account, and the comparison with a provider's own record.
CREATE INDEX ledger_entries_of_a_merchant ON ledger_entries (merchant, occurred_at);
CREATE INDEX ledger_entries_of_a_payment ON ledger_entries (provider, reference) WHERE provider IS NOT NULL;

COMMENT ON TABLE ledger_entries IS 'Every movement of money and revenue; never changed, only added to';
COMMENT ON COLUMN ledger_entries.kind IS 'capture, refund, sale, return, resale';
COMMENT ON COLUMN ledger_entries.turn IS 'How often the order had been given up or come back before; 0 with captures and refunds';
COMMENT ON COLUMN ledger_entries.method IS 'With captures and refunds: position of the payment method in the order, from 1; else 0';
COMMENT ON COLUMN ledger_entries.reference IS 'With captures and refunds: the provider''s id of the payment; else empty';
COMMENT ON COLUMN ledger_entries.version IS 'The change of the order''s status that the entry follows from';
COMMENT ON COLUMN ledger_entries.debit IS 'The account that the amount is added to';
COMMENT ON COLUMN ledger_entries.credit IS 'The account that the amount is taken from';
COMMENT ON COLUMN ledger_entries.provider IS 'With captures and refunds: the payment provider';
COMMENT ON COLUMN ledger_entries.occurred_at IS 'When the status changed';

-- What the ledger remembers beside its entries: changes may be read late, and a hand-over that comes after the word of the
-- order's return must still be sold and taken back.
CREATE TABLE ledger_handovers (
    order_id    uuid        NOT NULL,
    accepted_at timestamptz NOT NULL,
    version     integer     NOT NULL,
    handed_over boolean     NOT NULL,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (order_id, accepted_at, version)
);

COMMENT ON TABLE ledger_handovers IS 'Where changes of status said that an order''s goods are; sales and returns follow from it';
COMMENT ON COLUMN ledger_handovers.handed_over IS 'True: handed to the courier, or delivered; false: given up, or back';

CREATE FUNCTION ledger_is_added_to_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the ledger is never changed: correct it by another entry'; END $$;

CREATE TRIGGER added_to_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_added_to_only();

CREATE VIEW ledger_postings AS
    SELECT e.merchant, e.order_id, e.accepted_at, e.kind, e.turn, e.method, e.reference, e.version, e.occurred_at,
        side.account, CASE WHEN side.account = 'clearing' THEN e.provider END AS provider, side.amount_minor, e.currency
    FROM ledger_entries e
    CROSS JOIN LATERAL (VALUES (e.debit, e.amount_minor), (e.credit, -e.amount_minor)) AS side (account, amount_minor);

COMMENT ON VIEW ledger_postings IS 'Both sides of every entry: debits are positive, credits negative';

CREATE VIEW ledger_balances AS
    SELECT merchant, account, provider, currency, sum(amount_minor)::bigint AS balance_minor
    FROM ledger_postings GROUP BY merchant, account, provider, currency;

COMMENT ON VIEW ledger_balances IS 'Per merchant, account, provider and currency; a credit balance is negative';
