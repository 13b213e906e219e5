-- Windows of five minutes over the stream; rows appear as orders come.
SELECT window_start, category, COUNT(*) AS orders, SUM(amount) AS revenue
FROM TUMBLE(TABLE {{ source('shop', 'orders') }}, DESCRIPTOR(event_time), INTERVAL '5' MINUTE)
GROUP BY window_start, category
