-- Lists of a merchant's orders, and of one customer's, newest first. No column here changes after the insert, so updates
-- of a row still touch no index.

CREATE INDEX orders_by_merchant ON orders (merchant, accepted_at, order_id);

CREATE INDEX orders_by_customer ON orders (merchant, customer_id, accepted_at, order_id)
    WHERE customer_id IS NOT NULL;
