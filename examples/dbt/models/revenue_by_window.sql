-- Windows of five minutes over the stream; rows change as purchases come.
SELECT window_start, category, COUNT(*) AS purchases, SUM(amount) AS revenue
FROM TUMBLE(TABLE {{ source('shop', 'purchases') }}, DESCRIPTOR(event_time), INTERVAL '5' MINUTE)
GROUP BY window_start, category
