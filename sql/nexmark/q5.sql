-- Hot items: the auctions with the most bids in the last ten seconds, every two seconds. All of them, where several are equal.
CREATE MATERIALIZED VIEW q5 AS
WITH counts AS (
  SELECT auction, COUNT(*) AS bids, window_start, window_end
  FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
  GROUP BY auction, window_start, window_end
), most AS (
  SELECT MAX(bids) AS bids, window_start, window_end
  FROM counts
  GROUP BY window_start, window_end
)
SELECT counts.auction, counts.bids, counts.window_start, counts.window_end
FROM counts
JOIN most USING (window_start, window_end, bids);
