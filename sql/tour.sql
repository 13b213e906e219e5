-- The tour: a stream, views in the spellings of the field, and every way to read them.
--
--   psql -h 127.0.0.1 -p 6433 -U tidegate -f sql/tour.sql

\set ON_ERROR_STOP on

DROP MATERIALIZED VIEW IF EXISTS revenue, revenue_by_name, revenue_ksql, revenue_final, customers CASCADE;
DROP STREAM IF EXISTS orders;

-- A stream is kept in the log. Rows of one customer are in one partition, in order.
CREATE STREAM orders (
  order_id    TEXT,
  customer_id TEXT,
  amount      DECIMAL(10,2),
  category    TEXT,
  event_time  TIMESTAMP(3),
  WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND
) PARTITION BY (customer_id) INTO 4 PARTITIONS;

INSERT INTO orders VALUES
  ('o1', 'c1',  12.50, 'books', '2025-01-01 10:00:10'),
  ('o2', 'c2', 250.00, 'games', '2025-01-01 10:01:00'),
  ('o3', 'c1',  30.00, 'games', '2025-01-01 10:02:30'),
  ('o4', 'c3',   8.99, 'books', '2025-01-01 10:05:00');

\copy orders FROM STDIN CSV HEADER
order_id,customer_id,amount,category,event_time
o5,c2,120.00,toys,2025-01-01 10:06:15
o6,c4,15.25,books,2025-01-01 10:07:45
o7,c1,99.90,games,2025-01-01 10:11:00
\.

-- A view is the stored result of a query that never ends. Flink's spelling:
CREATE MATERIALIZED VIEW revenue AS
SELECT window_start, window_end, category, COUNT(*) AS order_count, SUM(amount) AS total_revenue, AVG(amount) AS avg_order_value
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(event_time), INTERVAL '5' MINUTES))
GROUP BY window_start, window_end, category;

-- RisingWave's:
CREATE MATERIALIZED VIEW revenue_by_name AS
SELECT window_start, window_end, category, COUNT(*) AS order_count, SUM(amount) AS total_revenue, AVG(amount) AS avg_order_value
FROM TUMBLE(orders, event_time, INTERVAL '5 minutes')
GROUP BY window_start, window_end, category;

-- ksqlDB's:
CREATE TABLE revenue_ksql AS
SELECT window_start, window_end, category, COUNT(*) AS order_count, SUM(amount) AS total_revenue, AVG(amount) AS avg_order_value
FROM orders WINDOW TUMBLING (SIZE 5 MINUTES)
GROUP BY category
EMIT CHANGES;

-- And with rows that appear once, when the watermark has closed their window:
CREATE MATERIALIZED VIEW revenue_final AS
SELECT window_start, window_end, category, COUNT(*) AS order_count, SUM(amount) AS total_revenue, AVG(amount) AS avg_order_value
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(event_time), INTERVAL '5' MINUTES))
GROUP BY window_start, window_end, category
EMIT FINAL;

-- Views are tables to whoever reads them.
SELECT * FROM revenue WHERE total_revenue > 20 ORDER BY window_start, category LIMIT 10;
SELECT * FROM revenue_final ORDER BY window_start, category;

CREATE MATERIALIZED VIEW customers AS
SELECT customer_id, COUNT(*) AS order_count, SUM(amount) AS total FROM orders GROUP BY customer_id;

-- All of SQL, over one moment: a join of two views, a CTE, a window function.
SELECT r.window_start, r.category, r.order_count, f.order_count AS final_count
FROM revenue r LEFT JOIN revenue_final f USING (window_start, category)
ORDER BY 1, 2;

WITH totals AS (SELECT category, SUM(total_revenue) AS total FROM revenue GROUP BY category)
SELECT category, total, ROUND(100 * total / SUM(total) OVER (), 1) AS percent FROM totals ORDER BY total DESC;

SELECT window_start, category, total_revenue, RANK() OVER (PARTITION BY window_start ORDER BY total_revenue DESC) AS rank
FROM revenue ORDER BY window_start, rank;

-- A stream reads as its log so far; where a row stands in the log is there for who asks.
SELECT * FROM orders ORDER BY order_id;
SELECT _partition, _offset, order_id FROM orders ORDER BY _partition, _offset;

-- EMIT CHANGES goes on until it is cancelled, or has what it was asked for.
SELECT category, amount FROM orders WHERE amount > 100 EMIT CHANGES LIMIT 2;

-- The changes of a view, through a cursor so that the script can end.
BEGIN;
DECLARE changes CURSOR FOR SUBSCRIBE revenue;
FETCH 3 FROM changes WITH (timeout = '1s');
CLOSE changes;
COMMIT;

-- What there is, and how it works.
SHOW STREAMS;
SHOW MATERIALIZED VIEWS;
SHOW CREATE revenue;
DESCRIBE orders;
EXPLAIN SELECT category, SUM(amount) FROM orders GROUP BY category;
EXPLAIN revenue;
\d
\dt
\d revenue

-- The claim of the house, checked: the view is what the batch query says.
VERIFY revenue;
VERIFY revenue_final;

DROP MATERIALIZED VIEW customers;
