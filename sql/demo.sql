-- What `tidegate --demo` starts: made-up orders that arrive as you watch, and two views over windows of event time.

CREATE STREAM IF NOT EXISTS orders (
  order_id    TEXT,
  customer_id TEXT,
  amount      DECIMAL(10,2),
  category    TEXT,
  event_time  TIMESTAMP(3),
  WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND
) PARTITION BY (customer_id) INTO 4 PARTITIONS
WITH (connector = 'orders-demo', rate = 20);

-- Revenue per category and ten seconds. The newest window grows while you look at it.
CREATE MATERIALIZED VIEW IF NOT EXISTS revenue AS
SELECT window_start, window_end, category, COUNT(*) AS order_count, SUM(amount) AS total_revenue, AVG(amount) AS avg_order_value
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(event_time), INTERVAL '10' SECONDS))
GROUP BY window_start, window_end, category;

-- Customers and orders of the last minute, anew every ten seconds; a window appears once, when it is complete.
CREATE MATERIALIZED VIEW IF NOT EXISTS activity AS
SELECT window_start, window_end, COUNT(*) AS order_count, COUNT(DISTINCT customer_id) AS customers, MAX(amount) AS largest_order
FROM TABLE(HOP(TABLE orders, DESCRIPTOR(event_time), INTERVAL '10' SECONDS, INTERVAL '1' MINUTE))
GROUP BY window_start, window_end
EMIT FINAL;
