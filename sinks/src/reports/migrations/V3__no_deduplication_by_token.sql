-- A token is noted before its block is stored: a server killed in between refuses the block for ever.
-- Rows that come twice are one by their key.

ALTER TABLE order_events MODIFY SETTING non_replicated_deduplication_window = 0;

ALTER TABLE order_lines MODIFY SETTING non_replicated_deduplication_window = 0;

ALTER TABLE order_states MODIFY SETTING non_replicated_deduplication_window = 0;
