-- The stream that the models read: what is outside of dbt, and there before it.
CREATE STREAM IF NOT EXISTS purchases (
  purchase_id TEXT NOT NULL, customer_id BIGINT, category TEXT, amount NUMERIC(10,2), event_time TIMESTAMP(3),
  WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND
) PARTITION BY (customer_id) INTO 2 PARTITIONS;

INSERT INTO purchases VALUES
  ('o1', 1, 'books', 12.50, '2025-01-01 10:00:01'), ('o2', 2, 'toys', 100.00, '2025-01-01 10:01:00'),
  ('o3', 1, 'books', 7.25, '2025-01-01 10:06:00'), ('o4', 3, 'games', 60.00, '2025-01-01 10:07:30'),
  ('o5', 2, 'toys', 1.00, '2025-01-01 10:12:00');
