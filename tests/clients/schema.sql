-- What every client finds: a stream, tables, a view and a materialized view, with keys and comments, and a value of every type.
CREATE STREAM orders (order_id TEXT NOT NULL, customer_id BIGINT, amount NUMERIC(10,2), at TIMESTAMP(3),
  WATERMARK FOR at AS at - INTERVAL '5' SECOND) PARTITION BY (customer_id) INTO 2 PARTITIONS;
COMMENT ON TABLE orders IS 'what was ordered';
COMMENT ON COLUMN orders.amount IS 'in euros';

CREATE TABLE customers (id BIGINT, name VARCHAR(40) NOT NULL, token UUID, details JSONB, joined TIMESTAMPTZ, PRIMARY KEY (id));
COMMENT ON TABLE customers IS 'who orders';

CREATE TABLE stock (shop INTEGER, item TEXT, pieces INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (shop, item));

CREATE VIEW large_orders AS SELECT order_id, amount, at FROM orders WHERE amount >= 50;

CREATE MATERIALIZED VIEW revenue AS
SELECT customer_id, COUNT(*) AS orders, SUM(amount) AS total, MAX(at) AS latest FROM orders GROUP BY customer_id;
COMMENT ON MATERIALIZED VIEW revenue IS 'what they paid';

CREATE TABLE every_type (
  id BIGINT PRIMARY KEY, f_bool BOOLEAN, f_int2 SMALLINT, f_int4 INTEGER, f_int8 BIGINT, f_float4 REAL, f_float8 DOUBLE PRECISION,
  f_numeric NUMERIC(20,4), f_text TEXT, f_varchar VARCHAR(20), f_bytea BYTEA, f_date DATE, f_time TIME, f_timestamp TIMESTAMP,
  f_timestamptz TIMESTAMPTZ, f_interval INTERVAL, f_uuid UUID, f_json JSON, f_jsonb JSONB,
  f_ints INTEGER[], f_texts TEXT[], f_numerics NUMERIC(10,2)[], f_uuids UUID[]);

INSERT INTO orders VALUES ('o1', 1, 12.50, '2025-01-01 10:00:01'), ('o2', 2, 100.00, '2025-01-01 10:01:00'),
  ('o3', 1, 7.25, '2025-01-01 10:06:00');
INSERT INTO customers VALUES (1, 'Ada', '6f1f2a3e-0c1f-4d6a-9d1c-0a2b3c4d5e6f', '{"vip": true, "tags": ["a", "b"]}', '2024-02-29 12:00:00+00'),
  (2, 'Grace', NULL, NULL, NULL);
INSERT INTO stock VALUES (1, 'pear', 3), (1, 'plum', 0), (2, 'pear', 8);
INSERT INTO every_type VALUES
  (1, true, -32768, 2147483647, -9223372036854775808, 1.5, -2.25, 1234567890123456.7891, 'Zürich ''n'' "more"', 'twenty', '\x00ff10',
   '2024-02-29', '23:59:59.999999', '2024-02-29 12:34:56.789012', '2024-02-29 12:34:56.789012+00', '1 year 2 months 3 days 04:05:06.789',
   '6f1f2a3e-0c1f-4d6a-9d1c-0a2b3c4d5e6f', '{"a": [1, 2, null]}', '{"a": [1, 2, null]}',
   ARRAY[1, NULL, 3], ARRAY['a', 'b,c', 'd"e', ''], ARRAY[1.25, 2.50], ARRAY['6f1f2a3e-0c1f-4d6a-9d1c-0a2b3c4d5e6f'::uuid]),
  (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (3, false, 0, 0, 0, 'NaN', 'Infinity', 0, '', '', '', '0001-01-01', '00:00', '1970-01-01', '1970-01-01 00:00+00', '-1 day -00:00:01',
   '00000000-0000-0000-0000-000000000000', 'null', '[]', '{}', '{}', '{}', '{}');
