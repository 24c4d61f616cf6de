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

-- One amount goes from one account to another, so debits and credits are equal in every entry, whatever its currency.
CREATE TABLE ledger_entries (
    order_id     uuid        NOT NULL,
    accepted_at  timestamptz NOT NULL,
    version      integer     NOT NULL,
    entry        integer     NOT NULL,
    merchant     text        NOT NULL,
    kind         text        NOT NULL CHECK (kind IN ('capture', 'refund', 'sale', 'return', 'resale')),
    debit        text        NOT NULL REFERENCES ledger_accounts,
    credit       text        NOT NULL REFERENCES ledger_accounts CHECK (credit <> debit),
    amount_minor bigint      NOT NULL CHECK (amount_minor > 0),
    currency     text        NOT NULL,
    provider     text,
    method       integer,
    reference    text,
    occurred_at  timestamptz NOT NULL,
    PRIMARY KEY (order_id, accepted_at, version, entry),
    CHECK (('clearing' IN (debit, credit)) = (provider IS NOT NULL AND method IS NOT NULL AND reference IS NOT NULL))
);

COMMENT ON TABLE ledger_entries IS 'Every movement of money and revenue; never changed, only added to';
COMMENT ON COLUMN ledger_entries.version IS 'The change of the order''s status that the entry follows from';
COMMENT ON COLUMN ledger_entries.entry IS 'Which entry of that change: 0 of its status, others of its payments';
COMMENT ON COLUMN ledger_entries.provider IS 'With captures and refunds: the payment provider';
COMMENT ON COLUMN ledger_entries.method IS 'With captures and refunds: position of the payment method in the order, from 1';
COMMENT ON COLUMN ledger_entries.reference IS 'With captures and refunds: the provider''s id of the payment';
COMMENT ON COLUMN ledger_entries.occurred_at IS 'When the status changed';

CREATE FUNCTION ledger_is_added_to_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the ledger is never changed: correct it by another entry'; END $$;

CREATE TRIGGER added_to_only BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION ledger_is_added_to_only();

CREATE VIEW ledger_postings AS
    SELECT merchant, order_id, accepted_at, version, entry, kind, occurred_at, currency,
        debit AS account, CASE WHEN debit = 'clearing' THEN provider END AS provider, amount_minor
    FROM ledger_entries
    UNION ALL
    SELECT merchant, order_id, accepted_at, version, entry, kind, occurred_at, currency,
        credit, CASE WHEN credit = 'clearing' THEN provider END, -amount_minor
    FROM ledger_entries;

COMMENT ON VIEW ledger_postings IS 'Both sides of every entry: debits are positive, credits negative';

CREATE VIEW ledger_balances AS
    SELECT merchant, account, provider, currency, sum(amount_minor)::bigint AS balance_minor
    FROM ledger_postings GROUP BY merchant, account, provider, currency;

COMMENT ON VIEW ledger_balances IS 'Per merchant, account, provider and currency; a credit balance is negative';
