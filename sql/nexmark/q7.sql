-- Highest bid of every ten seconds, with who made it. All of them, where several are equal.
CREATE MATERIALIZED VIEW q7 AS
WITH placed AS (
  SELECT auction, bidder, price, date_time, extra, window_start, window_end
  FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
), highest AS (
  SELECT MAX(price) AS price, window_start, window_end
  FROM placed
  GROUP BY window_start, window_end
)
SELECT placed.auction, placed.price, placed.bidder, placed.date_time, placed.extra
FROM placed
JOIN highest USING (window_start, window_end, price);
