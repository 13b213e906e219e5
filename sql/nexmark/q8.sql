-- New sellers: people who opened an auction in the ten seconds in which they had registered.
CREATE MATERIALIZED VIEW q8 AS
WITH registered AS (
  SELECT id, name, window_start, window_end
  FROM TUMBLE(person, date_time, INTERVAL '10 seconds')
  GROUP BY id, name, window_start, window_end
), opened AS (
  SELECT seller, window_start, window_end
  FROM TUMBLE(auction, date_time, INTERVAL '10 seconds')
  GROUP BY seller, window_start, window_end
)
SELECT registered.id, registered.name, registered.window_start
FROM registered
JOIN opened ON opened.seller = registered.id
  AND opened.window_start = registered.window_start AND opened.window_end = registered.window_end;
